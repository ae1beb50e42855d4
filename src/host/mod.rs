//! What we ask of the host: is KVM there, what kind is it, how much memory has the machine?

pub mod built;
pub mod cgroup;
pub mod claims;
pub mod cpuid_offer;
pub mod descriptors;
pub mod disk;
pub mod jail;
pub mod ledger;
pub mod net;
pub mod rights;
pub mod runtime;
pub mod seccomp;
pub mod thread;

pub use kvmlet_sys::{
    clock, directory, environment, facts, interrupt, kvm, process, ring, signals, standard_error,
    whole_file,
};
use kvmlet_sys::{lock, temporary, users};

/// All RAM of the host, in bytes.
pub fn total_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram
        .saturating_mul(u64::from(info.mem_unit.max(1)))
}

/// What can be used of that now without taking it from anybody (`MemAvailable` in proc_meminfo(5)), in bytes;
/// all of it where the kernel does not tell.
pub fn available_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map_or_else(total_memory_bytes, |kib| kib.saturating_mul(1024))
}
