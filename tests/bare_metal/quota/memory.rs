//! Memory limits.

use super::{USUAL_WEIGHT, Vm, cgroup, mount, sandbox};
use crate::cli::vm_process;
use crate::harness::Test;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
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

/// The memory cgroup that a VM is in, and the version of its tree.
struct MemoryCgroup(PathBuf, u8);

impl MemoryCgroup {
    fn of(vm: &Vm) -> Self {
        let place = cgroup(format!("/proc/{}", vm_process(&vm.running)), "memory");
        let path = mount("memory").join(place.trim_start_matches('/'));
        let version = if path.join("memory.current").exists() {
            2
        } else {
            1
        };
        Self(path, version)
    }

    fn read(&self, v1: &str, v2: &str) -> u64 {
        let text = fs::read_to_string(self.0.join([v1, v2][usize::from(self.1 - 1)])).unwrap();
        // Of several counters, the one of times that the limit was reached.
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("max "));
        lines.next().unwrap_or(text.trim()).parse().unwrap()
    }

    fn used(&self) -> u64 {
        self.read("memory.usage_in_bytes", "memory.current")
    }

    fn limit(&self) -> u64 {
        self.read("memory.limit_in_bytes", "memory.max")
    }

    fn times_at_limit(&self) -> u64 {
        self.read("memory.memsw.failcnt", "memory.events")
    }

    fn set_limit(&self, bytes: u64) {
        // The sum with swap is never less than the limit without.
        let v1 = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"];
        let files = if self.1 == 1 {
            &v1[..]
        } else {
            &["memory.max"]
        };
        for file in files {
            fs::write(self.0.join(file), bytes.to_string()).unwrap();
        }
    }
}

fn touches_all() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    for mode in ["shared", "reserved"] {
        let flags = ["--memory", "64M", "--memory-mode", mode];
        let mut vm = Vm::start(sandbox.boot("orders").args(flags));
        assert_eq!(vm.line(), "ready");
        let taken = MemoryCgroup::of(&vm).used() >= 64 << 20;
        assert_eq!(taken, mode == "reserved", "{mode}");
        vm.say("t");
        assert_eq!(
            vm.line(),
            format!("touched={}", (64 << 20) - (0x10_0000 - 0x9_fc00))
        );
        let used = MemoryCgroup::of(&vm).used();
        let limit = MemoryCgroup::of(&vm).limit();
        assert!((64 << 20..limit).contains(&used), "{used} of {limit}");
        assert_eq!(
            MemoryCgroup::of(&vm).times_at_limit(),
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
    MemoryCgroup::of(&bad).set_limit(32 << 20);
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
