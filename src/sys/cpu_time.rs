//! The CPU time of another process, thread by thread.

use std::fs::{read_dir, read_to_string};
use std::time::Duration;

/// A thread's CPU time, in and out of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadTime {
    /// What the thread calls itself, which may be anything.
    pub name: String,
    /// In the kernel's ticks, as a rule 10 ms each.
    pub cpu: Duration,
}

/// That of each thread of a process, in no order: none if the process is gone, or /proc does not tell. Threads that have
/// ended do not count.
pub fn of_threads(pid: u32) -> impl Iterator<Item = ThreadTime> {
    let threads = read_dir(format!("/proc/{pid}/task")).into_iter();
    let threads = threads.flatten().flatten();
    let texts = threads.filter_map(|thread| read_to_string(thread.path().join("stat")).ok());
    texts.filter_map(|text| parse(&text, ticks_per_second()))
}

/// Name and times in proc_pid_stat(5): the second field, and the 14th and 15th.
fn parse(text: &str, ticks_per_second: u64) -> Option<ThreadTime> {
    let (before, behind) = text.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut fields = behind.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()?.checked_add(ticks()?)?;
    Some(ThreadTime {
        name: name.into(),
        cpu: Duration::from_micros(ticks.saturating_mul(1_000_000) / ticks_per_second),
    })
}

fn ticks_per_second() -> u64 {
    // SAFETY: returns a number.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn names_may_be_anything() {
        let text = "7 (a) (b) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 5 6 20 0 1 0 1234 0 0";
        let time = parse(text, 100).unwrap();
        assert_eq!(time.name, "a) (b");
        assert_eq!(time.cpu, Duration::from_millis(420));
        for cut in ["", "7", "7 (a", "7 (a) S 1 7", "7 )a( S"] {
            assert_eq!(parse(cut, 100), None, "{cut}");
        }
    }

    #[test]
    fn a_thread_that_works_is_seen_to() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let busy = || {
            let mut times = of_threads(std::process::id());
            let busy = times.find(|time| time.name == "kvmlet-busy");
            busy.map_or(Duration::ZERO, |time| time.cpu)
        };
        let thread = std::thread::Builder::new().name("kvmlet-busy".into());
        let thread = thread
            .spawn(move || while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {})
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while busy() < Duration::from_millis(30) {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(stop);
        thread.join().unwrap();
        assert_eq!(busy(), Duration::ZERO);
        assert_eq!(of_threads(u32::MAX).count(), 0);
    }
}
