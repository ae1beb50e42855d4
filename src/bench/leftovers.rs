//! What a benchmark, or what it started, has left behind: processes, cgroups and files.
//!
//! All of it is known by the name of the workshop, which no other benchmark has: processes by a variable in their
//! environment, containers by the cgroup that theirs are below.

use kvmlet_host::shares::cgroup;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The variable that tells which benchmark started a process: a path in its workshop.
const MARK: &str = "KVMLET_BENCH";

/// A killed process is gone in milliseconds, unless it waits for a device that hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// The mount points of this thread that are wanted, by path and kind, the last one first.
pub(super) fn mounts(wanted: impl Fn(&Path, &str) -> bool) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let point = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = Path::new(mount.split(' ').nth(4)?);
        wanted(point, kind).then(|| point.to_owned())
    };
    text.lines().rev().filter_map(point).collect()
}

/// Marks a command, and whatever it starts, as a benchmark's whose workshop has the path in it.
pub(super) fn mark(command: &mut Command, path: &Path) {
    command.env(MARK, path);
}

/// Ends what runs for a workshop that nobody works in, then removes its cgroups and its directory. If something
/// cannot be removed the directory stays, so that the next benchmark tries again.
pub(super) fn clear(path: &Path, name: &str) {
    end_marked(path);
    let mut trees = mounts(|_, kind| kind.starts_with("cgroup"));
    trees.retain(|tree| is_cgroup(tree));
    let cleared = trees.iter().fold(true, |cleared, tree| {
        cleared & cgroup::remove_left_over(&with_below(tree.join(name))).is_ok()
    });
    if cleared {
        let _ = fs::remove_dir_all(path);
    }
}

/// Is it one still? Something else may be mounted over it, see [`own_mounts`](super::workshop::own_mounts).
fn is_cgroup(tree: &Path) -> bool {
    let kind = rustix::fs::statfs(tree).map(|tree| tree.f_type);
    kind.is_ok_and(|kind| [libc::CGROUP_SUPER_MAGIC, libc::CGROUP2_SUPER_MAGIC].contains(&kind))
}

/// A cgroup, and all below it behind it.
fn with_below(group: PathBuf) -> Vec<PathBuf> {
    let mut groups = vec![group];
    let mut next = 0;
    while let Some(group) = groups.get(next) {
        let below = fs::read_dir(group).into_iter().flatten().flatten();
        let below = below.map(|entry| entry.path()).filter(|path| path.is_dir());
        groups.extend(below.collect::<Vec<_>>());
        next += 1;
    }
    groups
}

/// Kills the processes that were started for a workshop, and waits until they are gone.
fn end_marked(path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    let killed: Vec<OwnedFd> = processes()
        .filter_map(|pid| kill_marked(pid, path))
        .collect();
    for process in &killed {
        let _ = wait::one(Slot::readable(process.as_fd()), Until::Deadline(deadline));
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// Kills a process if it has the mark. It is opened first: the number may belong to another one by then.
fn kill_marked(pid: Pid, path: &Path) -> Option<OwnedFd> {
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let environment = environment(pid)?;
    let prefix = format!("{MARK}=");
    let mut variables = environment.split(|byte| *byte == 0);
    let mark = variables.find_map(|variable| variable.strip_prefix(prefix.as_bytes()))?;
    let is_ours = Path::new(OsStr::from_bytes(mark)).starts_with(path);
    (is_ours && pidfd_send_signal(&process, Signal::KILL).is_ok()).then_some(process)
}

/// The variables that a process was started with. While it executes a program it seems to have none: whoever started it goes
/// on as soon as the old program's memory is gone, and the kernel takes down where the new one's are a moment later.
fn environment(pid: Pid) -> Option<Vec<u8>> {
    const LOOKS: usize = 100;
    const PAUSE: Duration = Duration::from_millis(1);
    let file = |name| format!("/proc/{}/{name}", pid.as_raw_nonzero());
    for _ in 0..LOOKS {
        let environment = fs::read(file("environ")).ok()?;
        // The kernel's own threads have no program, and never any.
        if !environment.is_empty() || fs::read_link(file("exe")).is_err() {
            return Some(environment);
        }
        std::thread::sleep(PAUSE);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn only_those_of_the_workshop_are_ended() {
        let place = tempfile::tempdir().unwrap();
        let [mine, other] =
            ["kvmlet-bench-1-a", "kvmlet-bench-1-ab"].map(|name| place.path().join(name));
        fs::create_dir_all(&mine).unwrap();
        fs::create_dir_all(&other).unwrap();
        let start = |path: &Path| {
            let mut command = Command::new("sleep");
            mark(
                command.arg("1000").stdin(Stdio::null()),
                &path.join("stderr"),
            );
            command.spawn().unwrap()
        };
        let (mut ended, mut kept) = (start(&mine), start(&other));
        clear(&mine, "kvmlet-bench-1-a");
        assert!(!mine.exists() && other.exists());
        assert!(ended.wait().unwrap().code().is_none());
        assert!(kept.try_wait().unwrap().is_none());
        kept.kill().unwrap();
        kept.wait().unwrap();
    }
}
