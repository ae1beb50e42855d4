//! Facts about the host that decide what a VM can be given.

use super::tap::Unattached;
use std::fs;
use std::io;
use std::path::Path;

/// The host's reserved 2 MiB pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReservedPages {
    /// Pages in the pool.
    pub total: u64,
    /// Pages that nobody uses.
    pub free: u64,
}

impl ReservedPages {
    /// Reads the pool's size; a kernel without hugetlb has none.
    pub fn read() -> Self {
        Self {
            total: Self::total(),
            free: Self::count("free_hugepages"),
        }
    }

    /// Pages in the pool.
    pub fn total() -> u64 {
        Self::count("nr_hugepages")
    }

    fn count(name: &str) -> u64 {
        let pool = Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB");
        let text = fs::read_to_string(pool.join(name)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

/// The mode of transparent huge pages (`always`, `madvise`, `never`), if the kernel has them.
pub fn transparent_huge_pages() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let start = text.find('[')? + 1;
    Some(text[start..].split(']').next()?.to_string())
}

/// The version of the kernel that runs: (6, 12), say. (0, 0) if it cannot be told.
pub fn kernel_version() -> (u32, u32) {
    version(&rustix::system::uname().release().to_string_lossy())
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-', '+']).map(|word| word.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(Some(major)), Some(Some(minor))) => (major, minor),
        _ => (0, 0),
    }
}

/// What the kernel reads the clock from (`tsc`, `hpet`), if it tells.
pub fn clock_source() -> Option<String> {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    Some(fs::read_to_string(path).ok()?.trim().into())
}

/// `CAP_NET_ADMIN` (linux/capability.h), which making a tap takes.
pub const CAP_NET_ADMIN: u32 = 12;

/// Has this process a capability in its effective set?
pub fn has_capability(number: u32) -> bool {
    let sets = rustix::thread::capabilities(None);
    sets.is_ok_and(|sets| sets.effective.bits() >> number & 1 == 1)
}

/// Can the device behind taps be opened?
///
/// # Errors
/// What `open` says.
pub fn open_tun() -> io::Result<()> {
    Unattached::open().map(drop)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_begin_with_the_version() {
        assert_eq!(version("6.1.0-13-amd64"), (6, 1));
        assert_eq!(version("5.14-rc3"), (5, 14));
        assert_eq!(version("5.4+"), (5, 4));
        assert_eq!(version("odd"), (0, 0));
        assert!(kernel_version() >= (4, 12));
    }
}
