//! What KVM does for a vCPU that halts, and whose time that is.

use crate::harness::{Guest, Test};
use kvmlet_spec::{CpuQuota, VmConfigBuilder};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

pub const TESTS: &[Test] = &[(NAME, halting)];

const NAME: &str = "the_time_of_a_quota_is_not_spent_on_waiting_for_halted_vcpus";
const ALONE: &str = "KVMLET_TEST_HALTING";

/// linux/kvm.h: `_IO(KVMIO, 0xce)`.
const KVM_GET_STATS_FD: libc::Ioctl = 0xaece;

fn halting() {
    if std::env::var_os(ALONE).is_none() {
        // Which vCPU is whose shows only where there is no other VM.
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command.args(["--exact", NAME]).env(ALONE, "1").output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
        return;
    }
    let mut tries = (0..5).map(|_| polls(|config| config));
    let free = tries.find(|polls| *polls != Some(0)).unwrap_or(Some(0));
    let quota: CpuQuota = "1".parse().unwrap();
    let held = polls(|config| config.cpu_quota(quota));
    let (Some(free), Some(held)) = (free, held) else {
        println!("SKIPPED: this KVM tells no statistics (KVM_CAP_BINARY_STATS_FD)");
        return;
    };
    assert_eq!(held, 0);
    if free == 0 {
        // A host may be so slow, or set so, that KVM never does.
        println!(
            "SKIPPED: this KVM has not polled without a quota, so that it has not with one says little"
        );
    }
}

/// How often KVM has polled for a vCPU that halts again and again.
fn polls(configure: impl FnOnce(VmConfigBuilder) -> VmConfigBuilder) -> Option<u64> {
    let before = vcpus();
    let guest = Guest::boot_with("orders", configure);
    guest.output.expect("ready");
    let vcpu = *vcpus().difference(&before).next().unwrap();
    // KVM polls when halts were short. How long the guest takes until it halts again differs from host to host, so
    // that it is woken just then is tried with times of all lengths.
    for micros in (0..600).map(|round| round * 7) {
        guest.send(b"x");
        std::thread::sleep(Duration::from_micros(micros));
    }
    // KVM answers only while the vCPU does not run.
    guest.vm.pause().unwrap();
    // SAFETY: the ioctl takes no argument and returns a new descriptor, or -1.
    let stats = unsafe { libc::ioctl(vcpu, KVM_GET_STATS_FD) };
    let polls = (stats >= 0).then(|| {
        // SAFETY: the descriptor is new and nobody else's.
        read(&unsafe { File::from_raw_fd(stats) }, "halt_attempted_poll").unwrap()
    });
    guest.vm.resume().unwrap();
    guest.send(b"q");
    guest.finish();
    polls
}

/// The descriptors of first vCPUs.
fn vcpus() -> BTreeSet<i32> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let entries = entries.filter(|entry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        target.as_os_str() == "anon_inode:kvm-vcpu:0"
    });
    entries
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect()
}

/// A counter by its name (Linux Documentation/virt/kvm/api.rst §4.133).
fn read(stats: &File, name: &str) -> io::Result<u64> {
    let number = |offset: u64| -> io::Result<u64> {
        let mut bytes = [0; 4];
        stats.read_exact_at(&mut bytes, offset)?;
        Ok(u32::from_ne_bytes(bytes).into())
    };
    // struct kvm_stats_header and kvm_stats_desc.
    let (name_bytes, count) = (number(4)?, number(8)?);
    let (descriptors, data) = (number(16)?, number(20)?);
    for index in 0..count {
        let descriptor = descriptors + index * (16 + name_bytes);
        let mut text = vec![0; name_bytes as usize];
        stats.read_exact_at(&mut text, descriptor + 16)?;
        if text.split(|byte| *byte == 0).next() == Some(name.as_bytes()) {
            let mut value = [0; 8];
            stats.read_exact_at(&mut value, data + number(descriptor + 8)?)?;
            return Ok(u64::from_ne_bytes(value));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}
