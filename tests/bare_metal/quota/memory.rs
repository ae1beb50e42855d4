//! Memory limits.

use super::{USUAL_WEIGHT, Vm, cgroups, sandbox};
use crate::cli::vm_process;
use crate::harness::Test;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

pub const TESTS: &[Test] = &[
    (
        "a_guest_that_touches_all_memory_stays_within_its_limit",
        touches_all,
    ),
    (
        "a_guest_that_writes_to_its_disk_stays_within_its_limit",
        writes_fast,
    ),
    ("a_vm_beyond_its_memory_limit_is_killed_alone", killed_alone),
];

/// A file of the memory cgroup that a VM is in.
fn memory_file(vm: &Vm, file: &str) -> PathBuf {
    let place = cgroups(format!("/proc/{}", vm_process(&vm.running)))["memory"].clone();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let is_memory = |line: &&str| line.contains(" cgroup ") && line.contains("memory");
    let mount = mounts
        .lines()
        .find(is_memory)
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap();
    Path::new(mount)
        .join(place.trim_start_matches('/'))
        .join(file)
}

fn memory_count(vm: &Vm, file: &str) -> u64 {
    fs::read_to_string(memory_file(vm, file))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn touches_all() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    for mode in ["shared", "reserved"] {
        let flags = ["--memory", "64M", "--memory-mode", mode];
        let mut vm = Vm::start(sandbox.boot("orders").args(flags));
        assert_eq!(vm.line(), "ready");
        let taken = memory_count(&vm, "memory.usage_in_bytes") >= 64 << 20;
        assert_eq!(taken, mode == "reserved", "{mode}");
        vm.say("t");
        assert_eq!(
            vm.line(),
            format!("touched={}", (64 << 20) - (0x10_0000 - 0x9_fc00))
        );
        let used = memory_count(&vm, "memory.usage_in_bytes");
        let limit = memory_count(&vm, "memory.limit_in_bytes");
        assert!((64 << 20..limit).contains(&used), "{used} of {limit}");
        assert_eq!(
            memory_count(&vm, "memory.memsw.failcnt"),
            0,
            "the limit was never in the way"
        );
        vm.say("q");
        assert_eq!(vm.running.wait().unwrap().code(), Some(0));
    }
}

/// Pages of the host's cache count as the VM's, and those that are still to be written cannot be dropped.
fn writes_fast() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    // Not on a tmpfs, whose pages would stay.
    let disk = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    disk.as_file().set_len(256 << 20).unwrap();
    let mut command = sandbox.boot("virtio_blk_bench");
    command
        .args(["--memory", "64M", "--memory-mode", "reserved", "--disk"])
        .arg(disk.path());
    command.args(["--cmdline", "mmio=0xd0002000 ops=4000 large_ops=400"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("write1m"),
        "{text}"
    );
}

/// Its limit is taken down while it runs, for a VMM that leaks cannot be ordered.
fn killed_alone() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    let flags = ["--memory", "64M", "--memory-mode", "shared"];
    let mut good = Vm::start(sandbox.boot("orders").args(flags));
    let mut bad = Vm::start(sandbox.boot("orders").args(flags).stderr(Stdio::piped()));
    assert_eq!((good.line(), bad.line()), ("ready".into(), "ready".into()));
    // The sum with swap is never less than the limit without.
    for file in ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] {
        fs::write(memory_file(&bad, file), (32 << 20).to_string()).unwrap();
    }
    good.say("t");
    bad.say("t");
    assert_eq!(bad.line(), "");
    assert_eq!(bad.running.wait().unwrap().code(), Some(137));
    let mut message = String::new();
    bad.running
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut message)
        .unwrap();
    let expected =
        "error: the VM was killed because it took more memory than its limit of 32.0 MiB\n  help: ";
    assert!(message.starts_with(expected), "{message}");
    assert!(good.line().starts_with("touched="), "the neighbour lives");
    good.say("q");
    assert_eq!(good.running.wait().unwrap().code(), Some(0));
    assert_eq!(sandbox.left_over(), Vec::<PathBuf>::new());
}
