//! Looking for requests for a moment before sleeping for them, as long as that pays.
//!
//! To wake a thread that sleeps takes longer than many requests do, and the notification that wakes it costs the guest an
//! exit. A thread that looks instead spares both and takes a CPU meanwhile. So it looks for no longer than what has paid
//! off: the moment grows while requests come soon after the last one, is gone when one does not (KVM does the same where
//! a vCPU halts: `halt_poll_ns`), and where somebody else is given the CPU meanwhile, nothing is looked for at all for a time.

use std::time::{Duration, Instant};

/// The first moment.
const FIRST: Duration = Duration::from_micros(12);
/// Between two looks at a clock.
const LOOKS: u32 = 16;
/// A thread that looks, and sees that much time pass between two looks at the clock, was made to wait for its CPU.
const DISPLACED: Duration = Duration::from_micros(100);
/// For how long nothing is looked for then: at first, and at the most.
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(256)];

/// How long the thread of a queue looks before it sleeps.
#[derive(Debug)]
pub(super) struct Polling {
    /// The longest moment; zero where nothing is looked for.
    most: Duration,
    now: Duration,
    pause: Duration,
    /// Nothing is looked for before.
    resumes: Option<Instant>,
}

impl Polling {
    /// Of a thread that looks for no longer than `most` at a time.
    pub fn new(most: Duration) -> Self {
        Self {
            most,
            now: Duration::ZERO,
            pause: PAUSES[0],
            resumes: None,
        }
    }

    /// Looks until something is there, for the moment that pays; returns whether it is, and how long that took.
    pub fn look(&mut self, is_there: impl Fn() -> bool) -> (bool, Duration) {
        if self.now.is_zero() {
            return (false, Duration::ZERO);
        }
        let start = Instant::now();
        let mut before = start;
        loop {
            for _ in 0..LOOKS {
                if is_there() {
                    return (true, before - start);
                }
                std::hint::spin_loop();
            }
            // Whoever waits for this CPU may be whose request it is.
            std::thread::yield_now();
            let now = Instant::now();
            if now - before > DISPLACED {
                self.was_displaced(now);
                return (is_there(), now - start);
            }
            if now - start >= self.now {
                return (false, now - start);
            }
            before = now;
        }
    }

    /// Tells how long the thread then had nothing to do.
    pub fn slept(&mut self, long: Duration) {
        if long > self.most {
            self.now = Duration::ZERO;
            return;
        }
        if self.resumes.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.resumes = None;
        self.now = (self.now * 2).clamp(FIRST.min(self.most), self.most);
    }

    fn was_displaced(&mut self, now: Instant) {
        self.now = Duration::ZERO;
        self.resumes = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSES[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const MOST: Duration = Duration::from_micros(50);
    const SOON: Duration = Duration::from_micros(20);
    const LATE: Duration = Duration::from_millis(1);

    fn looks(polling: &mut Polling) -> u32 {
        let looked = Cell::new(0);
        let (found, _) = polling.look(|| {
            looked.set(looked.get() + 1);
            false
        });
        assert!(!found);
        looked.get()
    }

    #[test]
    fn it_looks_for_as_long_as_that_pays() {
        let mut polling = Polling::new(MOST);
        assert_eq!(looks(&mut polling), 0);
        polling.slept(LATE);
        assert_eq!(looks(&mut polling), 0);
        let moments: Vec<Duration> = (0..4)
            .map(|_| {
                polling.slept(SOON);
                polling.now
            })
            .collect();
        assert_eq!(moments, [12, 24, 48, 50].map(Duration::from_micros));
        assert!(looks(&mut polling) > 0);
        // Others may have had the CPU meanwhile.
        polling.now = MOST;
        let (found, took) = polling.look(|| true);
        assert!(found && took <= MOST);
        polling.slept(LATE);
        assert_eq!(looks(&mut polling), 0);
    }

    #[test]
    fn it_looks_for_nothing_where_others_want_the_cpu() {
        let mut polling = Polling::new(MOST);
        polling.slept(SOON);
        let displaced = Cell::new(false);
        let (found, _) = polling.look(|| {
            if !displaced.replace(true) {
                std::thread::sleep(2 * DISPLACED);
            }
            false
        });
        assert!(!found);
        // That soon after it no request has it look again.
        polling.slept(SOON);
        assert_eq!(polling.now, Duration::ZERO);
        polling.resumes = polling.resumes.map(|at| at - PAUSES[0]);
        polling.slept(SOON);
        assert_eq!(polling.now, FIRST);
        assert_eq!(polling.pause, 2 * PAUSES[0]);
    }

    #[test]
    fn without_a_moment_it_never_looks() {
        let mut polling = Polling::new(Duration::ZERO);
        for _ in 0..3 {
            polling.slept(Duration::ZERO);
            assert_eq!(looks(&mut polling), 0);
        }
    }
}
