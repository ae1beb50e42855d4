//! CPU time and CPUs.

use super::{FULL_WEIGHT, USUAL_WEIGHT, Vm, cgroup, host_cpus, sandbox};
use crate::harness::Test;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "half_a_cpu_is_half_a_cpu_and_others_take_the_rest",
        half_a_cpu,
    ),
    ("vcpus_stay_on_their_cpus", pinned),
    ("devices_run_beside_the_share_of_vcpus", beside),
];

fn allowed_cpus(thread: &Path) -> String {
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap().trim().into()
}

/// The CPU on which a thread ran last (field 39 in proc_pid_stat(5); the second may have blanks).
fn last_cpu(thread: &Path) -> String {
    let stat = fs::read_to_string(thread.join("stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    rest.split_whitespace().nth(36).unwrap().into()
}

/// A byte each millisecond of CPU time, or each hundred where the CPU is emulated.
const SHORT: &str = "period=1000000";

/// One CPU for two VMs that both take all they can get.
fn half_a_cpu() {
    let Some(sandbox) = sandbox(FULL_WEIGHT) else {
        return;
    };
    let cpu = host_cpus()[0].to_string();
    let start = |arguments: &[&str]| {
        let mut vm = Vm::start(
            sandbox
                .boot("spin")
                .args(["--cpuset", &cpu])
                .args(arguments),
        );
        vm.bytes(1);
        vm
    };
    let held = start(&["--cpu-quota", "0.5", "--cmdline", "period=0"]);
    let mut free = start(&["--cmdline", SHORT]);
    // Past the period in which they began.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        free.bytes(1);
    }
    let (begun, before) = (Instant::now(), (held.cpu_time(), free.cpu_time()));
    while begun.elapsed() < Duration::from_secs(3) {
        free.bytes(1);
    }
    let wall = begun.elapsed().as_secs_f64();
    let share = |now: Duration, before: Duration| (now - before).as_secs_f64() / wall;
    let held = share(held.cpu_time(), before.0);
    let free = share(free.cpu_time(), before.1);
    assert!(
        (0.45..=0.55).contains(&held),
        "{held:.3} CPUs, and the other has {free:.3}"
    );
    assert!(
        free >= 0.35,
        "the rest is for who takes it: {free:.3} CPUs beside {held:.3}"
    );
}

fn pinned() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    let cpus = host_cpus();
    let cpu = cpus[cpus.len() - 1].to_string();
    let mut vm =
        Vm::start(
            sandbox
                .boot("spin")
                .args(["--cpus", "2", "--cpuset", &cpu, "--cmdline", SHORT]),
        );
    vm.bytes(1);
    let threads = vm.threads();
    assert!(
        threads.iter().any(|(name, _)| name == "vcpu1"),
        "{threads:?}"
    );
    for _ in 0..10 {
        vm.bytes(1);
        for (name, thread) in &threads {
            assert_eq!(
                (allowed_cpus(thread), last_cpu(thread)),
                (cpu.clone(), cpu.clone()),
                "{name}"
            );
        }
    }
}

fn beside() {
    let Some(sandbox) = sandbox(USUAL_WEIGHT) else {
        return;
    };
    let cpu = host_cpus()[0].to_string();
    let quota = [
        "--cpu-quota",
        "0.3",
        "--cpuset",
        &cpu,
        "--cpu-scope",
        "vcpus",
    ];
    let mut vm = Vm::start(sandbox.boot("spin").args(["--cpus", "2"]).args(quota));
    vm.bytes(1);
    let all = allowed_cpus(Path::new("/proc/thread-self"));
    // One more is KVM's own, which it puts beside the vCPU that it began with.
    for (name, thread) in vm
        .threads()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("kvm-"))
    {
        let (place, is_vcpu) = (cgroup(&thread, "cpu"), name.starts_with("vcpu"));
        assert_eq!(place.ends_with("/vcpus"), is_vcpu, "{name}: {place}");
        let expected = if is_vcpu { &cpu } else { &all };
        assert_eq!(&allowed_cpus(&thread), expected, "{name}");
    }
}
