//! The walls between crates: ARCHITECTURE.md says which of ours knows which, and what none of them may bring along.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

use kvmlet_spec::Setting;
#[path = "walls/circles.rs"]
mod circles;

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A crate's name, and the names of those of ours that it depends on.
type Edges = BTreeMap<String, BTreeSet<String>>;

const ARCHITECTURE: &str = include_str!("../ARCHITECTURE.md");

/// What a VM's process and its supervisor, and those who embed them, must not carry: command lines, async runtimes, TLS.
const FOREIGN: [&str; 8] = [
    "clap",
    "tokio",
    "async-std",
    "smol",
    "hyper",
    "rustls",
    "openssl",
    "native-tls",
];
/// The crates that carry none of it.
const CLEAN: [&str; 8] = [
    "kvmlet",
    "kvmlet-control",
    "kvmlet-manager",
    "kvmlet-spec",
    "kvmlet-sys",
    "kvmlet-vmm",
    "kvmlet-host",
    "kvmlet-run",
];

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the table of crates says: names in code quotes, first the crate's own.
fn written() -> Edges {
    let (_, table) = ARCHITECTURE
        .split_once("| crate | is about | depends on (ours) |")
        .expect("there is a table of crates");
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let names = |cell: &str| -> Vec<String> {
        let quoted = cell.split('`').skip(1).step_by(2);
        quoted.map(Into::into).collect()
    };
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [name, _, needs] = cells[..] else {
            panic!("three columns: {row}");
        };
        (names(name).concat(), names(needs).into_iter().collect())
    })
    .collect()
}

/// What the manifests say, without what only tests need.
fn built() -> Edges {
    let text = cargo(&[
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
    ]);
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let needs = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap();
        let normal = dependencies.iter().filter(|it| it["kind"].is_null());
        normal.map(name).filter(|it| ours.contains(it)).collect()
    };
    packages
        .iter()
        .map(|package| (name(package), needs(package)))
        .collect()
}

#[test]
fn crates_know_whom_the_table_says() {
    assert_eq!(
        built(),
        written(),
        "manifests (left), ARCHITECTURE.md (right)"
    );
}

/// All crates that one brings along, itself among them.
fn tree(name: &str) -> BTreeSet<String> {
    let tree = cargo(&[
        "tree",
        "--offline",
        "--package",
        name,
        "--edges",
        "normal",
        "--prefix",
        "none",
    ]);
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    names.map(Into::into).collect()
}

#[test]
fn what_embedders_take_is_clean() {
    for name in CLEAN {
        let crates = tree(name);
        assert!(crates.contains(name), "{crates:?}");
        for foreign in FOREIGN {
            assert!(!crates.contains(foreign), "{name} brings {foreign}");
        }
    }
}

/// What talks to registries is in a program of its own, also where clap is.
#[test]
fn only_one_program_talks_to_registries() {
    const TALKS: [&str; 4] = ["ureq", "rustls", "ring", "webpki-roots"];
    let talking = tree("kvmlet-oci");
    for crate_ in TALKS {
        assert!(talking.contains(crate_), "{crate_}: {talking:?}");
        for name in ["kvmlet-cli", "kvmlet-bench", "kvmlet-image"] {
            assert!(!tree(name).contains(crate_), "{name} brings {crate_}");
        }
    }
}

#[test]
fn what_embedders_take_is_little() {
    let crates = tree("kvmlet");
    assert!(crates.len() <= 45, "{}: {crates:?}", crates.len());
}

/// All Rust sources below a directory.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A file of more lines hides a noun that wants a file of its own.
#[test]
fn no_file_is_long() {
    let mut found = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    assert!(found.len() > 100, "{found:?}");
    for path in found {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 400, "{}: {lines} lines", path.display());
    }
}

/// Crates whose texts may be read by somebody who types no flags.
const LIBRARIES: [&str; 8] = [
    "spec", "sys", "vmm", "host", "image", "run", "manager", "kvmlet",
];

/// A library names a `Setting`; who tells it to somebody says how that is set.
#[test]
fn libraries_name_no_flags() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for library in LIBRARIES {
        sources(&root.join(library), &mut found);
    }
    found.retain(|path| !path.to_string_lossy().contains("tests"));
    assert!(found.len() > 100, "{found:?}");
    for path in found {
        let text = std::fs::read_to_string(&path).unwrap();
        let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            let flag = named_flag(line);
            assert_eq!(flag, None, "{}: {line}", path.display());
        }
    }
}

/// A flag of `kvmlet boot` that stands in a line.
fn named_flag(line: &str) -> Option<&'static str> {
    let flags = Setting::ALL.iter().map(|it| it.definition().flag);
    flags.into_iter().find(|flag| {
        line.split("--").skip(1).any(|behind| {
            let rest = behind.strip_prefix(flag);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
        })
    })
}

#[test]
fn flags_are_found_where_they_stand() {
    assert_eq!(named_flag("ask for less --memory"), Some("memory"));
    assert_eq!(named_flag("`--net tap=NAME`"), Some("net"));
    assert_eq!(named_flag("`docker run --device` and `ls --network`"), None);
}

/// Cargo 1.95 leaves the symbols in an executable whose package has settings of its own, in spite of `strip`.
#[test]
fn a_release_of_the_command_has_no_symbols() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    let manifest = manifest.unwrap();
    assert!(manifest.contains("\nstrip = true\n"));
    assert!(!manifest.contains("\nkvmlet-cli.opt-level"));
}
