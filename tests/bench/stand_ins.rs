//! Programs that are not available here, and daemons that fail, by scripts of the same name that come first in PATH.

use crate::Test;
use crate::cache::{Cache, contestant, said};
use crate::harness;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub const TESTS: &[Test] = &[
    (
        "other_vmms_are_given_the_same_guest",
        harness::kvm,
        same_guest,
    ),
    (
        "what_loads_snapshots_as_firecracker_does_is_a_contestant",
        harness::kvm,
        snapshots,
    ),
    (
        "a_vmm_that_fails_is_a_failed_sample",
        harness::kvm,
        failing_vmm,
    ),
    (
        "a_daemon_that_ends_makes_its_engine_unusable",
        || Ok(()),
        failing_daemon,
    ),
    (
        "an_image_that_is_refused_makes_its_engine_unusable",
        || Ok(()),
        refused_image,
    ),
];

const VMMS: &str = "firecracker-linux,cloud-hypervisor-linux,crosvm-linux";

/// A directory of scripts.
fn scripts(scripts: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, script) in scripts {
        let file = directory.path().join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

/// One round with these scripts in front of what is in PATH.
fn round(cache: &Cache, first: &Path, names: &str) -> Value {
    let path = format!(
        "{}:{}",
        first.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = cache
        .bench(&["startup", "--rounds", "1", "--format", "json", "--only"])
        .arg(names)
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    cache.expect_nothing_left();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn same_guest() {
    // Each keeps what it is given, is ready, and stays as the real one does.
    let kept = tempfile::tempdir().unwrap();
    let keep = kept.path().display();
    let vmm = |name: &str| {
        format!(
            "case $1 in --version | version) exec echo {name} 1.2 ;; esac\n\
             printf '%s\\n' \"$@\" >{keep}/{name}\n\
             [ \"$4\" != --config-file ] || cat \"$5\" >>{keep}/{name}\n\
             echo ready\nexec sleep 1000"
        )
    };
    let names = ["firecracker", "cloud-hypervisor", "crosvm"];
    let texts = names.map(vmm);
    let pairs: Vec<_> = names
        .into_iter()
        .zip(texts.iter().map(String::as_str))
        .collect();
    let first = scripts(&pairs);
    let cache = Cache::new().with_kernel();
    let result = round(&cache, first.path(), VMMS);
    for name in names {
        let one = contestant(&result, &format!("{name}-linux"));
        assert_eq!(one["presence"]["version"], format!("{name} 1.2"));
        assert_eq!(one["figures"]["ready_ms"]["n"], 1, "{one:#}");
        let given = fs::read_to_string(kept.path().join(name)).unwrap();
        for expected in [
            "software-kvm/vmlinux",
            "bench.dir/ready.cpio",
            "console=ttyS0 reboot=k panic=-1 quiet kvmlet.arg=/bin/ready",
            "128",
        ] {
            assert!(given.contains(expected), "{name}: {given}");
        }
    }
    let settings = fs::read_to_string(kept.path().join("firecracker")).unwrap();
    let settings: Value =
        serde_json::from_str(settings.lines().last().unwrap_or_default()).unwrap();
    assert_eq!(settings["machine-config"]["mem_size_mib"], 128);
    assert!(settings["boot-source"]["boot_args"].is_string());
}

/// Kvmlet itself speaks that API, under that name.
fn snapshots() {
    let first = tempfile::tempdir().unwrap();
    let serve = Path::new(env!("CARGO_BIN_EXE_kvmlet")).with_file_name("kvmlet-serve");
    std::os::unix::fs::symlink(serve, first.path().join("firecracker")).unwrap();
    let result = round(&Cache::new(), first.path(), "firecracker-snapshot");
    let one = contestant(&result, "firecracker-snapshot");
    assert_eq!(one["figures"]["ready_ms"]["n"], 1, "{one:#}");
}

fn failing_vmm() {
    let script =
        "case $1 in --version | version) exec echo 1.2 ;; esac\necho 'no such luck' >&2\nexit 3";
    let names = ["firecracker", "cloud-hypervisor", "crosvm"];
    let first = scripts(&names.map(|name| (name, script)));
    let cache = Cache::new().with_kernel();
    let result = round(&cache, first.path(), VMMS);
    for name in VMMS.split(',') {
        let one = contestant(&result, name);
        let samples = one["samples"].as_array().unwrap();
        assert!(!samples.is_empty());
        for sample in samples {
            let error = sample["error"].as_str().unwrap();
            assert!(
                error.contains("exit status: 3") && error.contains("no such luck"),
                "{error}"
            );
        }
    }
}

/// The message of a contestant that is unusable.
fn unusable(result: &Value, name: &str) -> String {
    let one = contestant(result, name);
    assert_eq!(one["presence"]["state"], "unusable", "{one:#}");
    assert!(one["samples"].as_array().unwrap().is_empty());
    one["presence"]["message"].as_str().unwrap().into()
}

fn failing_daemon() {
    let daemon = "[ \"$1\" = --version ] && exec echo 1.2\necho 'no place to be' >&2\nexit 4";
    let client = "[ \"$1\" = --version ] && exec echo 1.2\necho 'nobody answers' >&2\nexit 1";
    let first = scripts(&[
        ("dockerd", daemon),
        ("docker", client),
        ("containerd", daemon),
        ("ctr", client),
    ]);
    let result = round(&Cache::new(), first.path(), "docker,ctr");
    for (name, daemon) in [("docker", "`dockerd`"), ("ctr", "`containerd`")] {
        let message = unusable(&result, name);
        // Without root it cannot even be given a network of its own.
        if rustix::process::geteuid().is_root() {
            assert!(message.contains("exit status: 4"), "{message}");
            assert!(message.contains("no place to be"), "{message}");
        }
        assert!(message.contains(daemon), "{message}");
    }
}

fn refused_image() {
    let podman = "[ \"$1\" = --version ] && exec echo 1.2\necho 'what an image' >&2\nexit 5";
    let first = scripts(&[("podman", podman)]);
    let result = round(&Cache::new(), first.path(), "podman");
    let message = unusable(&result, "podman");
    assert!(
        message.contains("`podman`: exit status: 5") && message.contains("what an image"),
        "{message}"
    );
}
