//! `docs/reference.md` is made of the settings' definitions, and is as they are.

use kvmlet_spec::Setting;
use std::fmt::Write;
use std::path::Path;

/// Set by whoever wants the file written anew.
const WRITE: &str = "KVMLET_WRITE_REFERENCE";

/// A bar would end a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn row(out: &mut String, cells: [&str; 3]) {
    let [name, key, help] = cells.map(cell);
    let code = |text: String| match text.as_str() {
        "" => String::new(),
        _ => format!("`{text}`"),
    };
    writeln!(out, "| {} | {} | {help} |", code(name), code(key)).unwrap();
}

fn reference() -> String {
    let mut out = format!(
        "# Settings\n\nAll that can be said about a VM: by a flag of `kvmlet boot`, or by a key of a configuration file. A key with dots is one in an object,\n\
         and `[]` stands for each of a list. This file is made from `src/spec/definitions.rs`: `{WRITE}=1 cargo test --test cli reference`.\n\n\
         | flag | key | what it does |\n|---|---|---|\n"
    );
    for setting in Setting::of_flags() {
        let flag = match (setting, setting.value()) {
            (Setting::Command, value) => format!("-- {value}..."),
            (_, "") => format!("--{}", setting.flag()),
            (_, value) => format!("--{} {value}", setting.flag()),
        };
        row(&mut out, [&flag, setting.definition().key, setting.help()]);
    }
    for setting in Setting::of_flags().filter(|it| it.keys().next().is_some()) {
        writeln!(
            out,
            "\n## Keys of `--{}`\n\nWith commas between; a comma in a value is written twice.\n\n\
             | in the flag's value | in a configuration file | what it does |\n|---|---|---|",
            setting.flag()
        )
        .unwrap();
        for key in setting.keys() {
            let form = match key.value() {
                "" => key.name().to_string(),
                value => format!("{}={value}", key.name()),
            };
            row(&mut out, [&form, key.definition().key, key.help()]);
        }
    }
    out
}

#[test]
fn the_reference_is_as_the_settings_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
    let reference = reference();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == reference,
        "docs/reference.md is stale: {WRITE}=1 cargo test --test cli reference"
    );
}
