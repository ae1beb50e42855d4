//! What comes of a limit on memory.

use crate::config::Memory;
use std::fs;
use std::path::{Path, PathBuf};

/// Why there was no memory for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfMemory {
    /// The cgroup had reached its limit.
    Limit(Memory),
    /// The host, or a cgroup above, had no more.
    Host,
}

/// A cgroup whose memory is limited, by the version of its tree.
#[derive(Clone, Debug)]
pub(super) enum MemoryLimit {
    V1(PathBuf),
    V2(PathBuf),
}

impl MemoryLimit {
    /// The kernel asks for up to eight pages at once before it kills (PAGE_ALLOC_COSTLY_ORDER).
    const MARGIN_BYTES: u64 = 8 * 4096;

    /// Whether the kernel has killed a process in it for want of memory, and where that was wanting.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        let (killed, limit, reached) = match self {
            Self::V1(path) => {
                let limit = number(path, "memory.limit_in_bytes", "")?;
                // Not `memory.failcnt`: newer kernels no longer count there (Linux 6.18: 0 after a kill).
                let most = number(path, "memory.max_usage_in_bytes", "")?;
                let killed = number(path, "memory.oom_control", "oom_kill ")?;
                (killed, limit, most + Self::MARGIN_BYTES >= limit)
            }
            Self::V2(path) => {
                let event = |name| number(path, "memory.events", name);
                (
                    event("oom_kill ")?,
                    number(path, "memory.max", "")?,
                    event("max ")? > 0,
                )
            }
        };
        match (killed, reached) {
            (0, _) => None,
            (_, true) => Some(OutOfMemory::Limit(Memory::from_bytes(limit))),
            (_, false) => Some(OutOfMemory::Host),
        }
    }
}

/// The number behind a word that begins a line.
fn number(directory: &Path, file: &str, word: &str) -> Option<u64> {
    let text = fs::read_to_string(directory.join(file)).ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(word));
    lines.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_counts_in_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let limit = MemoryLimit::V2(path.into());
        assert_eq!(limit.out_of_memory(), None, "nothing can be read");
        fs::write(path.join("memory.max"), "1048576\n").unwrap();
        let after = |max: u32, killed: u32| {
            let text =
                format!("low 0\nhigh 0\nmax {max}\noom 1\noom_kill {killed}\noom_group_kill 0\n");
            fs::write(path.join("memory.events"), text).unwrap();
            limit.out_of_memory()
        };
        assert_eq!(after(7, 0), None);
        assert_eq!(after(0, 1), Some(OutOfMemory::Host));
        assert_eq!(
            after(7, 1),
            Some(OutOfMemory::Limit(Memory::from_bytes(1 << 20)))
        );
    }
}
