//! Facts about the host that decide what a VM can be given.

use std::fs;
use std::io;
use std::path::Path;

/// Which cgroup hierarchy holds the controllers that quotas need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// The unified hierarchy has `cpu` and `memory`.
    V2,
    /// Controllers are mounted one by one (with or without an empty unified tree beside them).
    V1,
    /// Neither.
    None,
}

impl Cgroups {
    /// Looks at the mounts of this process.
    pub fn detect() -> Self {
        Self::below(Path::new("/sys/fs/cgroup"))
    }

    fn below(root: &Path) -> Self {
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let has = |name: &str| controllers.split_whitespace().any(|word| word == name);
        if has("cpu") && has("memory") {
            return Cgroups::V2;
        }
        let quota = ["cpu/cpu.cfs_quota_us", "cpu,cpuacct/cpu.cfs_quota_us"];
        let memory = root.join("memory/memory.limit_in_bytes");
        if memory.exists() && quota.iter().any(|file| root.join(file).exists()) {
            return Cgroups::V1;
        }
        Cgroups::None
    }
}

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
        let pool = Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB");
        let count = |name| {
            let text = fs::read_to_string(pool.join(name)).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        Self {
            total: count("nr_hugepages"),
            free: count("free_hugepages"),
        }
    }
}

/// The mode of transparent huge pages (`always`, `madvise`, `never`), if the kernel has them.
pub fn transparent_huge_pages() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    let start = text.find('[')? + 1;
    Some(text[start..].split(']').next()?.to_string())
}

/// `CAP_NET_ADMIN` (linux/capability.h), which making a tap takes.
pub const CAP_NET_ADMIN: u32 = 12;

/// Has this process a capability in its effective set?
pub fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> number & 1 == 1)
}

/// Can the device behind taps be opened?
///
/// # Errors
/// What `open` says.
pub fn open_tun() -> io::Result<()> {
    fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_hierarchy_with_the_controllers_counts() {
        let v2 = tree(&[("cgroup.controllers", "cpuset cpu io memory pids\n")]);
        assert_eq!(Cgroups::below(v2.path()), Cgroups::V2);
        let v1 = tree(&[
            ("unified/cgroup.controllers", "\n"),
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("memory/memory.limit_in_bytes", "1\n"),
        ]);
        assert_eq!(Cgroups::below(v1.path()), Cgroups::V1);
        let empty = tree(&[("cgroup.controllers", "pids\n")]);
        assert_eq!(Cgroups::below(empty.path()), Cgroups::None);
    }
}
