//! The first thread of another process, which may end long before its process does: a thread that waits for the host's
//! kernel, and for nothing else, ends no sooner than it is answered, killed or not. No event tells of that: a handle of
//! the process is readable when all of it has ended, and one of the thread (`PIDFD_THREAD`) since Linux 6.15 as well.

use rustix::process::Pid;

/// Has the first thread of this process ended? False where /proc does not tell.
pub fn has_ended(process: Pid) -> bool {
    let path = format!("/proc/{}/stat", process.as_raw_nonzero());
    std::fs::read_to_string(path).is_ok_and(|text| is_of_dead(&text))
}

/// Is this process about to be gone: has its first thread ended, or is it ending, or was it killed? What it has open, it may
/// have for a while: memory is given back before files are, and its other threads may wait for a disk. False where /proc does
/// not tell.
pub fn is_ending(process: Pid) -> bool {
    let read = |file| {
        let path = format!("/proc/{}/{file}", process.as_raw_nonzero());
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let stat = read("stat");
    is_of_dead(&stat) || is_of_dying(&stat) || is_of_killed(&read("status"))
}

/// By the kernel's flags of a thread, the seventh number behind its state.
fn is_of_dying(stat: &str) -> bool {
    /// PF_EXITING, and PF_SIGNALED: a signal has ended it (linux/sched.h; what these say has not changed since Linux 2.6).
    const ENDING: u64 = 0x4 | 0x400;
    let (_, rest) = stat.rsplit_once(')').unwrap_or_default();
    let flags = rest.split_whitespace().nth(6);
    flags
        .and_then(|flags| flags.parse::<u64>().ok())
        .is_some_and(|flags| flags & ENDING != 0)
}

/// Is SIGKILL among what has been sent to it (proc_pid_status(5))?
fn is_of_killed(status: &str) -> bool {
    let keys = ["SigPnd:", "ShdPnd:"];
    let mut sets = status
        .lines()
        .filter_map(|line| keys.iter().find_map(|key| line.strip_prefix(key)));
    sets.any(|set| {
        u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & 1 << (libc::SIGKILL - 1) != 0)
    })
}

/// The state is behind the name, which is in parentheses and may be anything (proc_pid_stat(5)).
fn is_of_dead(stat: &str) -> bool {
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn the_end_of_a_child_is_seen_before_it_is_waited_for() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(!has_ended(pid) && !is_ending(pid));
        drop(child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !has_ended(pid) {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(is_ending(pid));
        child.wait().unwrap();
        assert!(!has_ended(pid) && !is_ending(pid));
    }

    #[test]
    fn names_may_be_anything() {
        assert!(is_of_dead("7 (a) R (b) Z 1 7"));
        assert!(!is_of_dead("7 (a) Z (b) S 1 7"));
        assert!(!is_of_dead(""));
        assert!(is_of_dying("7 (a) 4 (b) t 1 7 7 0 -1 4194404 1"));
        assert!(is_of_dying("7 (a) S 1 7 7 0 -1 1024 1"));
        for stat in [
            "7 (a) S 1 7 7 0 -1 4194304 1",
            "7 (a) S 4 4 4 4 -1 0 4",
            "7 (a) S",
            "",
        ] {
            assert!(!is_of_dying(stat), "{stat}");
        }
        assert!(is_of_killed(
            "Name:\tSigPnd: 100\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"
        ));
        assert!(is_of_killed("ShdPnd:\t0000000000004100\n"));
        assert!(!is_of_killed(
            "SigPnd:\t0000000000004200\nSigBlk:\t0000000000000100\n"
        ));
        assert!(!is_of_killed(""));
    }
}
