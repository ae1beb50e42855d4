//! The command line, and what a process ends with.

use crate::client::{Served, firecracker, output};
use crate::harness::{Test, program};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

pub const TESTS: &[Test] = &[
    ("a_program_is_firecracker_under_its_name", name),
    ("its_help_is_kvmlet_s_as_well", help),
    ("a_file_describes_a_vm_without_an_api", file),
    ("a_process_ends_with_the_codes_that_clients_know", codes),
];

fn name() {
    let place = tempfile::tempdir().unwrap();
    let link = place.path().join("firecracker");
    symlink(env!("CARGO_BIN_EXE_kvmlet-serve"), &link).unwrap();
    let output = Command::new(&link).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().next(), Some("Firecracker v1.17.0"));
    let unlinked = Command::new(env!("CARGO_BIN_EXE_kvmlet-serve"))
        .output()
        .unwrap();
    assert_eq!(unlinked.status.code(), Some(125));
    // So is kvmlet's own.
    std::fs::remove_file(&link).unwrap();
    symlink(crate::harness::kvmlet(), &link).unwrap();
    let output = Command::new(&link).arg("--version").output().unwrap();
    assert!(output.stdout.starts_with(b"Firecracker v1.17.0\n"));
}

fn help() {
    let told = |words: &[&str]| {
        let output = Command::new(crate::harness::kvmlet())
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for (verb, flag) in [
        ("firecracker", "--api-sock PATH"),
        ("jailer", "--exec-file FILE"),
    ] {
        let help = told(&[verb, "--help"]);
        assert!(
            help.contains(&format!("Usage: kvmlet {verb} [OPTIONS]")),
            "{help}"
        );
        assert!(help.contains(flag), "{help}");
        assert_eq!(told(&["help", verb]), help);
        assert_eq!(told(&["-v", verb, "-h"]), help);
    }
    assert!(told(&["jailer", "--version"]).starts_with("Jailer v1.17.0\n"));
    let place = tempfile::tempdir().unwrap();
    let link = place.path().join("jailer");
    symlink(crate::harness::kvmlet(), &link).unwrap();
    let output = Command::new(&link).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"error: --exec-file is missing\n");
}

fn run_file(place: &Path, config: &Value, words: &[&str]) -> std::process::Output {
    let path = place.join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let mut command = firecracker();
    command.arg("--config-file").arg(path).args(words);
    output(&mut command)
}

fn file() {
    let place = tempfile::tempdir().unwrap();
    let config = json!({
        "boot-source": { "kernel_image_path": program("ready"), "boot_args": "" },
        "machine-config": { "vcpu_count": 1, "mem_size_mib": 32 },
    });
    let output = run_file(place.path(), &config, &["--no-api", "--no-seccomp"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.starts_with(b"ready"), "{output:?}");
}

fn codes() {
    let place = tempfile::tempdir().unwrap();
    let good = json!({ "boot-source": { "kernel_image_path": "/dev/null", "boot_args": "" } });
    for (config, words, code, part) in [
        // What is no kernel is found when it is read.
        (&good, &["--no-api"][..], 1, "kernel"),
        (&json!({}), &["--no-api"], 152, "no `boot-source`"),
        (&good, &["--no-such"], 153, "unknown argument `--no-such`"),
        (
            &good,
            &["--no-api", "--seccomp-filter", "f"],
            153,
            "--seccomp-filter is not supported",
        ),
        (
            &good,
            &["--api-sock", "/nowhere/s"],
            1,
            "cannot make the socket",
        ),
    ] {
        let output = run_file(place.path(), config, words);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {errors}");
        assert!(errors.contains(part), "{words:?}: {errors}");
    }
    // A guest that ends, however it does, ends the process with 0; a signal does as it does everywhere.
    for guest in ["power_off", "reset", "triple_fault"] {
        let mut vm = Served::new();
        vm.describe(guest, "");
        vm.act("InstanceStart");
        assert_eq!(vm.wait().code(), Some(0), "{guest}");
        assert!(!vm.socket.exists());
    }
    let mut vm = Served::new();
    let kill = Command::new("kill")
        .arg(vm.process.id().to_string())
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(vm.wait().code(), Some(143));
    assert!(!vm.socket.exists());
}
