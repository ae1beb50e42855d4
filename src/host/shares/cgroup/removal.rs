//! Taking cgroups away, with whoever is still in them.

use super::parent::PARENT;
use super::{Error, occupancy};
use kvmlet_sys::interrupt;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A killed process is gone in milliseconds, unless it waits for a device that hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether a signal ends the waiting.
const LOOK: Duration = Duration::from_millis(20);

/// Kills whoever is in the given cgroups, and removes them from last to first. Those that are gone already
/// are no error.
///
/// # Errors
/// When one stays: this process is in it, it has cgroups of others below it, or a process in it cannot die.
pub fn remove_left_over(directories: &[PathBuf]) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    for path in directories.iter().rev() {
        while let Err(error) = fs::remove_dir(path) {
            let failed = |source| Error::Remove {
                path: path.clone(),
                source,
            };
            match error.kind() {
                io::ErrorKind::NotFound => break,
                io::ErrorKind::ResourceBusy if Instant::now() < deadline => {
                    // A thread of a threaded cgroup is killed through the process that it belongs to.
                    let members = directories.iter().flat_map(|path| members(path));
                    end(members.collect(), directories, deadline).map_err(failed)?;
                }
                _ => return Err(failed(error)),
            }
        }
    }
    Ok(())
}

/// Removes cgroups that are shared, from last to first, as far as nobody is in them or below them. Where that was the
/// last cgroup of kvmlet in a place, the place is as it was before the first.
pub fn remove_unused(directories: &[PathBuf]) {
    for path in directories.iter().rev() {
        if fs::remove_dir(path).is_ok()
            && path.ends_with(PARENT)
            && let Some(place) = path.parent()
        {
            occupancy::restore(place);
        }
    }
}

/// The processes in a cgroup.
fn members(directory: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines()
        .filter_map(|line| Pid::from_raw(line.parse().ok()?))
        .collect()
}

/// Kills processes and waits until they are gone.
fn end(mut pids: Vec<Pid>, directories: &[PathBuf], deadline: Instant) -> io::Result<()> {
    pids.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
    pids.dedup();
    if pids.contains(&rustix::process::getpid()) {
        return Err(io::Error::other("this process is in it"));
    }
    let open = |pid: &Pid| {
        pidfd_open(*pid, PidfdFlags::empty())
            .ok()
            .map(|fd| (*pid, fd))
    };
    let opened: Vec<(Pid, OwnedFd)> = pids.iter().filter_map(open).collect();
    // Who is still a member now is whom the descriptor means; the number could have been used again.
    let still: Vec<Pid> = directories.iter().flat_map(|path| members(path)).collect();
    let targets: Vec<OwnedFd> = opened
        .into_iter()
        .filter(|(pid, _)| still.contains(pid))
        .map(|(_, fd)| fd)
        .collect();
    for target in &targets {
        match pidfd_send_signal(target, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for target in &targets {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let gone = wait::one(Slot::readable(target.as_fd()), Until::after(left.min(LOOK)))?;
            if gone || left <= LOOK {
                break;
            }
            interrupt::check()?;
        }
    }
    if targets.is_empty() {
        // The last one is between its end and the kernel's noting that.
        std::thread::yield_now();
    }
    Ok(())
}
