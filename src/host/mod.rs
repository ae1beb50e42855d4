//! What we ask of the host: is KVM there, what kind is it, how much memory has the machine?

pub mod cgroup;
pub mod claims;
pub mod clock;
pub mod cpuid_offer;
pub mod disk;
pub mod facts;
pub mod jail;
pub mod kvm;
pub mod ledger;
pub mod net;
pub mod process;
pub mod ring;
pub mod seccomp;
pub mod signals;
pub mod thread;
pub mod trace;

use std::path::PathBuf;

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

/// Where kvmlet notes what it has set up: `/run/kvmlet` for root, `$XDG_RUNTIME_DIR/kvmlet` for others.
pub fn runtime_directory() -> PathBuf {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return PathBuf::from("/run/kvmlet");
    }
    // Others than absolute paths are to be ignored (XDG Base Directory Specification).
    let directory = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match directory.filter(|path| path.is_absolute()) {
        Some(directory) => directory.join("kvmlet"),
        None => std::env::temp_dir().join(format!("kvmlet-{}", user.as_raw())),
    }
}
