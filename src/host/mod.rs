//! What we ask of the host: is KVM there, what kind is it, how much memory has the machine?

pub mod clock;
pub mod disk;
pub mod facts;
pub mod kvm;
pub mod net;
pub mod process;
pub mod ring;
pub mod signals;
pub mod thread;

/// All RAM of the host, in bytes.
pub fn total_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram
        .saturating_mul(u64::from(info.mem_unit.max(1)))
}
