//! The guest's clock of the day. It goes with the host's counter, but not when the VM or the host stood still, and nobody in the
//! guest corrects what the host's own corrections make of the difference. So it is asked what time it is, when the two may have
//! parted and now and then, and set where they have. A guest may say what it likes: once asked, it is set once at most.

use kvmlet_sys::clock::ClockWatch;
use kvmlet_sys::wait::Slot;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is between asking and answer is known no better. Clocks that differ by less have not parted.
const TOLERANCE: Duration = Duration::from_millis(100);
/// From one look to the next, where there is no reason for one: what a counter that is wrong by a hundred millionths gains or
/// loses meanwhile is within the tolerance, and an idle guest is not woken for it more often.
const PAUSE: Duration = Duration::from_secs(600);

/// When a guest is asked for its clock, and what comes of the answer.
#[derive(Debug)]
pub(super) struct Timekeeping {
    /// The host's own clock; none if that cannot be watched.
    host: Option<ClockWatch>,
    due: Instant,
    /// What time it was here when the guest was asked.
    asked: Option<Duration>,
}

/// What a guest's clock is to be set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Correction {
    /// Time since 1970-01-01 00:00 UTC.
    pub to: Duration,
    /// How far it was from that.
    pub by: Duration,
    /// It was behind, and not ahead.
    pub behind: bool,
}

impl Timekeeping {
    pub fn new() -> Self {
        let host = ClockWatch::new();
        if let Err(error) = &host {
            log::warn!("the host's clock is not watched: {error}");
        }
        Self {
            host: host.ok(),
            due: Instant::now() + PAUSE,
            asked: None,
        }
    }

    /// What is to be waited for.
    pub fn slot(&self) -> Slot<'_> {
        let host = self.host.as_ref();
        host.map_or(Slot::NOTHING, |host| Slot::readable(host.as_fd()))
    }

    /// When the next look is due by itself.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Has the host's clock jumped since this was asked last?
    pub fn has_jumped(&mut self) -> bool {
        let jumped = self.host.as_ref().map(ClockWatch::has_jumped);
        match jumped {
            None => false,
            Some(Ok(jumped)) => jumped,
            Some(Err(error)) => {
                log::warn!("the host's clock is not watched any more: {error}");
                self.host = None;
                false
            }
        }
    }

    /// The guest is asked now.
    pub fn asks(&mut self) {
        self.due = Instant::now() + PAUSE;
        self.asked = now();
    }

    /// It has answered; what its clock is to be set to, if it is.
    pub fn answered(&mut self, guest: Duration) -> Option<Correction> {
        correction(self.asked.take()?, guest, now()?)
    }
}

fn now() -> Option<Duration> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok()
}

/// What is to be done about a guest that says what time it is, between these two times of the host.
fn correction(asked: Duration, guest: Duration, answered: Duration) -> Option<Correction> {
    // Between the two the host's own clock may have been set back.
    let way = answered.saturating_sub(asked);
    let agrees = asked.saturating_sub(TOLERANCE)..=answered.saturating_add(TOLERANCE);
    if agrees.contains(&guest) {
        return None;
    }
    Some(Correction {
        // It takes as long again until it is there.
        to: answered + way / 2,
        by: guest.abs_diff(answered),
        behind: guest < answered,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn clocks_that_have_parted_are_set() {
        for guest in [900, 1000, 1020, 1140] {
            assert_eq!(correction(ms(1000), ms(guest), ms(1040)), None, "{guest}");
        }
        let behind = Correction {
            to: ms(10_010),
            by: ms(9000),
            behind: true,
        };
        assert_eq!(correction(ms(9980), ms(1000), ms(10_000)), Some(behind));
        let ahead = correction(ms(1000), ms(1141), ms(1040)).unwrap();
        assert_eq!(
            (ahead.by, ahead.behind, ahead.to),
            (ms(101), false, ms(1060))
        );
        // The host's was set back meanwhile.
        let back = correction(ms(5000), ms(5000), ms(1000)).unwrap();
        assert_eq!((back.to, back.behind), (ms(1000), false));
        assert!(correction(ms(1000), Duration::MAX, ms(1000)).is_some());
    }

    #[test]
    fn who_was_not_asked_is_not_heard() {
        let mut keeping = Timekeeping::new();
        assert_eq!(keeping.answered(ms(1)), None);
        keeping.asks();
        assert!(keeping.answered(ms(1)).is_some_and(|it| it.behind));
        assert_eq!(keeping.answered(ms(1)), None, "once");
        assert!(!keeping.has_jumped());
    }
}
