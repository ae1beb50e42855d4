//! The first thread of another process, which may end long before its process does: a thread that waits for the host's
//! kernel, and for nothing else, ends no sooner than it is answered, killed or not. No event tells of that: a handle of
//! the process is readable when all of it has ended, and one of the thread (`PIDFD_THREAD`) since Linux 6.15 as well.

use rustix::process::Pid;

/// Has the first thread of this process ended? False where /proc does not tell.
pub fn has_ended(process: Pid) -> bool {
    let path = format!("/proc/{}/stat", process.as_raw_nonzero());
    std::fs::read_to_string(path).is_ok_and(|text| is_of_dead(&text))
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
        assert!(!has_ended(pid));
        drop(child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !has_ended(pid) {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait().unwrap();
        assert!(!has_ended(pid));
    }

    #[test]
    fn names_may_be_anything() {
        assert!(is_of_dead("7 (a) R (b) Z 1 7"));
        assert!(!is_of_dead("7 (a) Z (b) S 1 7"));
        assert!(!is_of_dead(""));
    }
}
