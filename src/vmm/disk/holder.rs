//! Who has a disk open, for messages: the kernel does not say who stands in the way of a lock or a claim.

use kvmlet_sys::first_thread;
use rustix::process::Pid;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// A process that has a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pid: u32,
    command: String,
    is_this: bool,
    has_lock: bool,
}

impl Holder {
    /// The process that has locked a disk, or else has it open for writing, as far as this one may look. `but` is a
    /// descriptor of this process that does not count.
    pub(super) fn of(disk: &Metadata, but: Option<i32>) -> Option<Self> {
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // By what /proc calls it: this process may have a number of its own, in a namespace that /proc is not of.
        let this = std::fs::read_link("/proc/self").ok();
        let this = this.and_then(|name| name.to_str()?.parse::<u32>().ok());
        let process = |pid, has_lock| Self {
            has_lock,
            is_this: Some(pid) == this,
            ..Self::process(pid)
        };
        let mut writer = None;
        for pid in pids {
            let but = but.filter(|_| Some(pid) == this);
            match (Hold::of(pid, disk, but), &writer) {
                (Some(Hold::Lock), _) => return Some(process(pid, true)),
                (Some(Hold::Writing), None) => writer = Some(pid),
                _ => {}
            }
        }
        writer.map(|pid| process(pid, false))
    }

    fn process(pid: u32) -> Self {
        let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self {
            pid,
            command: command.trim_end().into(),
            is_this: false,
            has_lock: false,
        }
    }

    /// Is it sure that it stands in the way? Who only has the disk open may not.
    pub(super) fn has_lock(&self) -> bool {
        self.has_lock
    }

    /// Is it about to be gone?
    pub(super) fn is_ending(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(first_thread::is_ending)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            command,
            is_this,
            ..
        } = self;
        match is_this {
            true => write!(f, "another disk of this process ({pid})"),
            false => write!(f, "process {pid} (`{}`)", command.escape_debug()),
        }
    }
}

/// How a descriptor has a disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    Lock,
    Writing,
}

impl Hold {
    fn of(pid: u32, disk: &Metadata, but: Option<i32>) -> Option<Self> {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let mut strongest = None;
        for descriptor in descriptors.flatten() {
            let name = descriptor.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            if number.is_some() && number == but || !is_same(&descriptor.path(), disk) {
                continue;
            }
            let info = Path::new("/proc")
                .join(pid.to_string())
                .join("fdinfo")
                .join(&name);
            match Self::by_info(&std::fs::read_to_string(info).unwrap_or_default()) {
                Some(Self::Lock) => return Some(Self::Lock),
                found => strongest = strongest.or(found),
            }
        }
        strongest
    }

    /// By what the kernel says of a descriptor (proc_pid_fdinfo(5)).
    fn by_info(text: &str) -> Option<Self> {
        if text.lines().any(|line| line.starts_with("lock:")) {
            return Some(Self::Lock);
        }
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
        (flags & libc::O_ACCMODE != libc::O_RDONLY).then_some(Self::Writing)
    }
}

/// Is it the same file, or the same device by whatever node?
fn is_same(path: &Path, disk: &Metadata) -> bool {
    std::fs::metadata(path).is_ok_and(|found| match disk.file_type().is_block_device() {
        true => found.file_type().is_block_device() && found.rdev() == disk.rdev(),
        false => (found.dev(), found.ino()) == (disk.dev(), disk.ino()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_locks_and_access() {
        for (text, expected) in [
            (
                "pos:\t0\nflags:\t0100002\nlock:\t1: OFDLCK ADVISORY WRITE -1 00:1a:5 0 EOF\n",
                Some(Hold::Lock),
            ),
            ("pos:\t0\nflags:\t0100001\n", Some(Hold::Writing)),
            ("pos:\t0\nflags:\t0100000\n", None),
            ("", None),
            ("flags:\tx\n", None),
        ] {
            assert!(Hold::by_info(text) == expected, "{text}");
        }
    }

    #[test]
    fn another_process_is_found_by_its_descriptor() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let own = std::os::fd::AsRawFd::as_raw_fd(file.as_file());
        assert_eq!(Holder::of(&metadata, Some(own)), None);
        // The command, which has the file open as well, is gone when the child runs.
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(file.reopen().unwrap())
            .spawn()
            .unwrap();
        let found = Holder::of(&metadata, Some(own)).unwrap();
        assert_eq!(found.pid, child.id());
        assert_eq!(found.to_string(), format!("process {} (`cat`)", child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
