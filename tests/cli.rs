//! The command line without a guest: help, errors and their exit codes, configuration files.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed test

#[path = "cli/bad_values.rs"]
mod bad_values;
#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/outputs.rs"]
mod outputs;
#[path = "cli/reference.rs"]
mod reference;
#[path = "cli/scripts.rs"]
mod scripts;
#[path = "cli/verbs.rs"]
mod verbs;

use std::path::Path;
use std::process::{Command, Output};

fn kvmlet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kvmlet"))
        .args(arguments)
        .output()
        .expect("kvmlet runs")
}

fn stdout(arguments: &[&str]) -> String {
    let output = kvmlet(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Fails with kvmlet's own exit code and says all of `parts`, in one block without Rust's formatting.
fn fails(arguments: &[&str], parts: &[&str]) {
    let output = kvmlet(arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{arguments:?}: {message}");
    assert!(message.starts_with("error: "), "{message}");
    for part in parts {
        assert!(
            message.contains(part),
            "{arguments:?}: no {part:?} in {message}"
        );
    }
    for rust in ["os error", "Os {", "Error(", "stack backtrace"] {
        assert!(!message.contains(rust), "{message}");
    }
}

#[test]
fn help_and_version_need_nothing() {
    assert!(stdout(&["--help"]).contains("doctor"));
    let help = stdout(&["boot", "--help"]);
    for part in [
        "--cpu-mask",
        "iops-once=N",
        "rx-once=SIZE",
        "deflate-on-oom=",
    ] {
        assert!(help.contains(part), "{part}: {help}");
        let same = [stdout(&["help", "boot"]), stdout(&["man", "boot"])];
        let bare = |text: &str| text.replace('\\', "");
        assert!(same.iter().all(|text| bare(text).contains(part)), "{part}");
    }
    assert!(stdout(&["--version"]).starts_with("kvmlet "));
}

/// What docker takes: `-m 1.5g`. And a comma in the name of a disk.
#[test]
fn sizes_have_decimals_and_paths_have_commas() {
    let twice = ["--disk", "a,,b.img", "--disk", "path=a,,b.img"];
    let boot = ["boot", "--kernel", "k", "-m", "1.5g"];
    fails(
        &[&boot[..], &twice].concat(),
        &["the disk `a,b.img` is named twice"],
    );
    fails(&["boot", "-m", "0.1k"], &["102 bytes of guest memory"]);
}

#[test]
fn completions_and_man_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&["completions", shell]);
        // A flag of `kvmlet boot`, and one of the program that `kvmlet bench` executes.
        for flag in ["cpu-mask", "parallel"] {
            assert!(script.contains(flag), "{shell}: no {flag}");
        }
    }
    assert!(stdout(&["man"]).contains(".TH kvmlet"));
    assert!(stdout(&["man", "boot"]).contains("huge"));
    assert!(stdout(&["man", "bench"]).contains("startup"));
    // So are those whose flags are of other makers.
    let verbs = stdout(&["--help"]);
    for (verb, flag) in [("firecracker", "api-sock"), ("jailer", "exec-file")] {
        assert!(verbs.contains(&format!("\n  {verb} ")), "{verbs}");
        let page = stdout(&["man", verb]).replace('\\', "");
        assert!(page.contains(flag), "{page}");
        assert!(stdout(&["completions", "bash"]).contains(&format!("--{flag}")));
    }
    fails(&["man", "nothing"], &["no verb `nothing`"]);
}

#[test]
fn kernels_that_are_none_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    };
    let mut arm = b"\x7fELF\x02\x01\x01".to_vec();
    arm.resize(64, 0);
    (arm[16], arm[18]) = (2, 183);
    for (path, cause) in [
        (file("empty", b""), "the file is empty"),
        (
            file("text", b"not a kernel, but some words"),
            "neither an ELF image",
        ),
        (file("gzip", b"\x1f\x8b\x08\x00"), "gzip"),
        (file("arm", &arm), "machine is EM_AARCH64"),
        (file("cut", &b"\x7fELF\x02\x01\x01\x00"[..]), "truncated"),
        (
            directory.path().to_str().unwrap().to_string(),
            "is a directory",
        ),
        ("/dev/null".to_string(), "not a regular file"),
        ("/nowhere/vmlinux".to_string(), "no such file or directory"),
    ] {
        fails(
            &["boot", "--kernel", &path],
            &[&path, cause, "help: build one with `kernels/build`"],
        );
    }
}

#[test]
fn sizes_and_counts_are_limited() {
    let kernel = env!("CARGO_BIN_EXE_kvmlet");
    fails(
        &["boot", "--kernel", kernel, "--memory", "1M"],
        &["1 MiB", "16 MiB to 4 TiB"],
    );
    fails(
        &["boot", "--kernel", kernel, "--cpus", "0"],
        &["0 vCPUs", "1 to 254"],
    );
    fails(
        &[
            "boot",
            "--kernel",
            kernel,
            "--memory",
            "17M",
            "--huge-pages",
            "reserved",
        ],
        &["2097152"],
    );
    fails(&["boot", "--kernel", kernel, "--memory", "4T"], &["4 TiB"]);
    fails(
        &["boot", "--kernel", kernel, "--cmdline", "a\nb"],
        &["line break"],
    );
    let output = kvmlet(&["boot", "--memory", "12Q"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not a memory size"));
    let output = kvmlet(&["boot", "--cpu-mask", "cx61"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `cx16`?"));
}

#[test]
fn configuration_files_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vm.json");
    let config = |json: &str, parts: &[&str]| {
        std::fs::write(&path, json).unwrap();
        fails(&["boot", "--config", path.to_str().unwrap()], parts);
    };
    config(
        r#"{"kernl": "k"}"#,
        &["vm.json", "unknown key `kernl`", "did you mean `kernel`?"],
    );
    config(r#"{"kernel": "#, &["vm.json", "line 1"]);
    config(r#"{"kernel": "/nowhere/k"}"#, &["`/nowhere/k`"]);
    config(r#"{"kernel": "/nowhere/k", "vcpus": 999}"#, &["999 vCPUs"]);
    fails(
        &["boot", "--config", "/nowhere/vm.json"],
        &["/nowhere/vm.json", "no such file"],
    );
    // It is not waited for.
    let fifo = directory.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let fifo = fifo.to_str().unwrap();
    fails(
        &["boot", "--config", fifo],
        &[fifo, "nobody writes to this pipe"],
    );
    let socket = directory.path().join("api");
    let socket = socket.to_str().unwrap();
    for words in [
        ["--no-api", "--config-file", fifo],
        ["--metadata", fifo, "--api-sock"],
    ] {
        let socket = words.ends_with(&["--api-sock"]).then_some(socket);
        let words: Vec<_> = ["firecracker"]
            .into_iter()
            .chain(words)
            .chain(socket)
            .collect();
        let output = kvmlet(&words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("nobody writes to this pipe"),
            "{words:?}: {said}"
        );
    }
}

#[test]
fn without_a_default_kernel_the_way_to_one_is_told() {
    let cache = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kvmlet"))
        .arg("boot")
        .env("XDG_CACHE_HOME", cache.path())
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("no default kernel") && message.contains("kernels/build"),
        "{message}"
    );
}

/// A service's own code can be 1 or 2: none of kvmlet's failures is taken for that.
#[test]
fn every_wrong_use_has_one_exit_code() {
    let uses: [&[&str]; 16] = [
        &[],
        &["nothing"],
        &["boo"],
        &["--nothing"],
        &["boot", "--nothing"],
        &["boot", "stray"],
        &["boot", "--kernel"],
        &["boot", "--cpus"],
        &["boot", "--cpus", "x"],
        &["boot", "--memory", "1"],
        &["boot", "--scratch", "s"],
        &["boot", "--config", "/nowhere"],
        &["boot", "--kernel", "/nowhere"],
        &["doctor", "--format", "xml"],
        &["completions", "csh"],
        &["bench", "nothing"],
    ];
    for arguments in uses {
        let output = kvmlet(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {said}");
        assert!(
            !said.is_empty() && output.stdout.is_empty(),
            "{arguments:?}"
        );
    }
    for arguments in [&["--help"][..], &["boot", "-h"], &["help"], &["--version"]] {
        assert_eq!(kvmlet(arguments).status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn doctor_reports_in_both_formats() {
    let output = kvmlet(&["doctor", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let kvm = findings
        .iter()
        .find(|finding| finding["name"] == "kvm")
        .unwrap();
    let works = Path::new("/dev/kvm").exists();
    assert_eq!(kvm["level"] == "ok", works);
    assert_eq!(output.status.code(), Some(if works { 0 } else { 1 }));
    assert!(String::from_utf8_lossy(&kvmlet(&["doctor"]).stdout).contains("CPU quota"));
}
