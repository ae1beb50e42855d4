//! What we ask of the host: is KVM there, what kind is it, how much memory has the machine?

pub mod cgroup;
pub mod claims;
pub mod clock;
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

/// Where kvmlet notes what it has set up: `/run/kvmlet` for root, `$XDG_RUNTIME_DIR/kvmlet` for others.
pub fn runtime_directory() -> PathBuf {
    let user = rustix::process::geteuid();
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !user.is_root() => PathBuf::from(directory).join("kvmlet"),
        None if !user.is_root() => std::env::temp_dir().join(format!("kvmlet-{}", user.as_raw())),
        _ => PathBuf::from("/run/kvmlet"),
    }
}
