//! What instances keep of the host's memory: the proportional set size of their processes (a page that n processes
//! share counts 1/n for each), split by what it is for.

use kvmlet_host::available_memory_bytes;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::ops::{AddAssign, Div};
use std::time::Duration;

/// What every VM is promised: kvmlet's default.
pub(super) const GUEST_BYTES: u64 = 128 << 20;

/// Proportional set sizes in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Guest RAM that was touched.
    pub guest_ram: f64,
    /// Of it, what is in no file: all that a guest has that was booted, and what one has written that goes on from a snapshot.
    pub guest_own: f64,
    /// Memory of the launcher's own (anonymous or written to), and for processes and containers the service's.
    pub private: f64,
    /// Pages of files that are mapped: programs and libraries. All instances share them.
    pub page_cache: f64,
}

impl Memory {
    /// All of it.
    pub fn sum(&self) -> f64 {
        self.guest_ram + self.private + self.page_cache
    }
}

impl AddAssign for Memory {
    fn add_assign(&mut self, other: Self) {
        self.guest_ram += other.guest_ram;
        self.guest_own += other.guest_own;
        self.private += other.private;
        self.page_cache += other.page_cache;
    }
}

impl Div<f64> for Memory {
    type Output = Self;

    fn div(self, by: f64) -> Self {
        Self {
            guest_ram: self.guest_ram / by,
            guest_own: self.guest_own / by,
            private: self.private / by,
            page_cache: self.page_cache / by,
        }
    }
}

/// The memory of processes together. Guest RAM is what kvmlet names so, or any mapping of `guest_bytes`.
pub(super) fn of(processes: &HashSet<u32>, guest_bytes: u64) -> Memory {
    let mut sum = Memory::default();
    for process in processes {
        // One that has just ended keeps nothing.
        let smaps = fs::read_to_string(format!("/proc/{process}/smaps")).unwrap_or_default();
        sum += parse(&smaps, guest_bytes);
    }
    sum
}

/// Reads what proc_pid_smaps(5) describes.
fn parse(smaps: &str, guest_bytes: u64) -> Memory {
    let mut memory = Memory::default();
    let (mut is_guest, mut is_file, mut pss) = (false, false, 0.0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if !first.ends_with(':') {
            // The head of a mapping: range, permissions, offset, device, inode, path.
            is_guest = line.contains("guest-ram") || size(first) == Some(guest_bytes);
            is_file = words.nth(3).is_some_and(|inode| inode != "0");
            continue;
        }
        let mib = words
            .next()
            .and_then(|word| word.parse::<f64>().ok())
            .unwrap_or(0.0)
            / 1024.0;
        match first {
            "Pss:" if is_guest => {
                pss = mib;
                memory.guest_ram += mib;
            }
            "Pss:" if is_file => {
                pss = mib;
                memory.page_cache += mib;
            }
            "Pss:" => memory.private += mib,
            "Anonymous:" if is_guest => memory.guest_own += mib.min(pss),
            // Pages of a file that were written to are the process's own.
            "Anonymous:" if is_file => {
                let own = mib.min(pss);
                memory.page_cache -= own;
                memory.private += own;
            }
            _ => {}
        }
    }
    memory
}

fn size(range: &str) -> Option<u64> {
    let (start, end) = range.split_once('-')?;
    Some(
        u64::from_str_radix(end, 16)
            .ok()?
            .wrapping_sub(u64::from_str_radix(start, 16).ok()?),
    )
}

/// What is on the command lines of whatever works in this process's workshop.
pub(super) fn tag() -> String {
    format!("kvmlet-bench-{}-", std::process::id())
}

/// Names of daemons that serve all containers; a shim of containerd's belongs to one container.
const DAEMONS: [&str; 2] = ["dockerd", "containerd"];

/// The processes of all instances: descendants of this process, orphans that came back to it included, and
/// whatever has `tag` on its command line (a daemon's children), with its descendants.
pub(super) fn processes(tag: &str) -> HashSet<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut found = vec![];
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // Daemons serve all containers.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if DAEMONS.contains(&name.trim_end()) {
            continue;
        }
        let Some(parent) = parent(process) else {
            continue;
        };
        children.entry(parent).or_default().push(process);
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&cmdline).contains(tag) {
            found.push(process);
        }
    }
    let own = std::process::id();
    found.extend(children.get(&own).into_iter().flatten());
    let mut all = HashSet::new();
    while let Some(process) = found.pop() {
        if process != own && all.insert(process) {
            found.extend(children.get(&process).into_iter().flatten());
        }
    }
    all
}

fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may hold spaces and parentheses: state and parent are behind the last one.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// What the host can still give when nobody gives memory back any more, as far as there is such a time: what those
/// before have had takes the kernel a while to clear away.
pub(super) fn settled_bytes() -> u64 {
    const PAUSE: Duration = Duration::from_millis(100);
    const TRIES: usize = 30;
    const STILL: u64 = 1 << 18;
    let mut before = available_memory_bytes();
    for _ in 0..TRIES {
        std::thread::sleep(PAUSE);
        let now = available_memory_bytes();
        if now.saturating_sub(before) < STILL {
            return now;
        }
        before = now;
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00200000-00400000 r-xp 00000000 fe:00 77  /usr/bin/some program
Pss:                1024 kB
Anonymous:             0 kB
00400000-00500000 rw-p 00000000 fe:00 77  /usr/bin/some program
Pss:                 512 kB
Anonymous:           256 kB
00600000-00700000 rw-p 00000000 00:00 0  [heap]
Pss:                 256 kB
Anonymous:           256 kB
10000000-18000000 rw-p 00000000 00:00 0
Pss:                4096 kB
Anonymous:          4096 kB
20000000-20001000 rw-p 00000000 00:00 0  [anon:guest-ram]
Pss:                1024 kB
Anonymous:          1024 kB
30000000-38000000 rw-p 01000000 fe:00 99  /tmp/some snapshot
Pss:                 512 kB
Anonymous:           256 kB
";

    #[test]
    fn mappings_are_told_apart() {
        let memory = parse(SMAPS, 128 << 20);
        assert_eq!(
            memory,
            Memory {
                guest_ram: 5.5,
                guest_own: 5.25,
                private: 0.5,
                page_cache: 1.25
            }
        );
        assert_eq!(memory.sum(), 7.25);
        assert_eq!((memory / 2.0).guest_own, 2.625);
    }

    #[test]
    fn this_process_has_memory_of_its_own_and_of_files() {
        let memory = of(&HashSet::from([std::process::id()]), u64::MAX);
        assert!(
            memory.private > 0.1 && memory.page_cache > 0.1,
            "{memory:?}"
        );
        assert_eq!(memory.guest_ram, 0.0);
        assert!(available_memory_bytes() > 1 << 20);
    }

    #[test]
    fn children_are_found_and_strangers_by_their_tag() {
        let tag = format!("tag-{}", std::process::id());
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", "read x", &tag])
            .stdin(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let found = processes(&tag);
        assert!(found.contains(&child.id()));
        assert!(!found.contains(&std::process::id()) && !found.contains(&1));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
