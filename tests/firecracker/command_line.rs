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
    // Nothing is said of a reader that has gone, and that of a disk that is full.
    for words in [
        ["serve", "--help"],
        ["firecracker", "--version"],
        ["jailer", "--help"],
    ] {
        let mut command = Command::new(crate::harness::kvmlet());
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.args(words).stdout(writer).output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{words:?}: {output:?}"
        );
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let output = command.stdout(full).output().unwrap();
        assert!(!output.status.success(), "{words:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.starts_with("error: cannot write to standard output\n"),
            "{said}"
        );
    }
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
    let disk = place.path().join("disk");
    std::fs::write(&disk, [7; 4096]).unwrap();
    let drive = json!({ "drive_id": "d", "path_on_host": disk, "is_root_device": false });
    let mut on_a_bus = config.clone();
    on_a_bus["boot-source"]["kernel_image_path"] = program("virtio_pci").to_str().into();
    on_a_bus["drives"] = json!([drive]);
    let output = run_file(place.path(), &on_a_bus, &["--no-api", "--enable-pci"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("disk 0: sectors=8 first=7"), "{output:?}");

    // Of CPUID leaf 1, a bit that all have, and a register: without a template, and with one that a file of its own has.
    let bits = |template: Option<&Path>| {
        let mut config = config.clone();
        config["boot-source"]["kernel_image_path"] = json!(program("cpuid"));
        config["boot-source"]["boot_args"] = json!("console=ttyS0");
        config["cpu-config"] = json!(template);
        let output = run_file(place.path(), &config, &["--no-api"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let word = |after: &str, place: usize| {
            let words = text.split(after).nth(1).unwrap().split_whitespace();
            u64::from_str_radix(words.into_iter().nth(place).unwrap(), 16).unwrap()
        };
        (
            word("cpuid 00000001 0: ", 2) >> 13 & 1,
            word("msr 1a0: ", 0) >> 3 & 1,
        )
    };
    let template = place.path().join("template.json");
    let modifiers = json!([{ "register": "ecx", "bitmap": "0bx0_xxxx_xxxx_xxxxx" }]);
    let cpus = json!({
        "cpuid_modifiers": [{ "leaf": "0x1", "subleaf": "0x0", "flags": 0, "modifiers": modifiers }],
        "msr_modifiers": [{ "addr": "0x1a0", "bitmap": "0b1xxx" }],
    });
    std::fs::write(&template, cpus.to_string()).unwrap();
    assert_eq!((bits(None), bits(Some(&template))), ((1, 0), (0, 1)));
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
