//! Asking a guest to end, and how long it may take.

use kvmlet_vmm::vm::VmHandle;
use std::time::{Duration, Instant};

/// Who asks again within this time has asked once: `timeout` sends its signal to a process and to its group, and a
/// terminal's Ctrl-C comes to whole groups, too.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(200);
/// What a guest has once the time of its service is up, to write to its disks and to power off.
pub(crate) const POWERING_OFF: Duration = Duration::from_secs(5);
/// The button is pressed again and again: whoever hears it may not be there yet when its driver is.
const AGAIN: Duration = Duration::from_secs(1);

/// What has become of a wish for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The guest has some time.
    Wait,
    /// Its power is to be cut: it hears nothing, its time is up, or somebody does not want to wait.
    Cut,
}

/// A guest that may be asked to end.
pub(crate) struct Stopping {
    /// How long it has.
    patience: Duration,
    asked: Option<Asked>,
}

struct Asked {
    at: Instant,
    press: Instant,
}

impl Stopping {
    /// Of a guest whose service has `timeout` to end.
    pub fn new(timeout: Duration) -> Self {
        Self {
            patience: timeout.saturating_add(POWERING_OFF),
            asked: None,
        }
    }

    /// Whoever asks next gives it this long, all in all.
    pub fn set_patience(&mut self, patience: Duration) {
        if self.asked.is_none() {
            self.patience = patience;
        }
    }

    /// Somebody wants the end.
    pub fn ask(&mut self, vm: &VmHandle) -> Answer {
        match &self.asked {
            Some(asked) if asked.at.elapsed() < AT_ONCE => Answer::Wait,
            Some(_) => Answer::Cut,
            None if !hears(vm) => Answer::Cut,
            None => {
                let at = Instant::now();
                let press = at + AGAIN;
                self.asked = Some(Asked { at, press });
                log::info!("the guest was asked to end");
                Answer::Wait
            }
        }
    }

    /// What is due now, once somebody has asked.
    pub fn go_on(&mut self, vm: &VmHandle) -> Answer {
        let Some(asked) = &mut self.asked else {
            return Answer::Wait;
        };
        if asked.at.elapsed() >= self.patience {
            log::warn!(
                "the guest has not ended within {} s: its power is cut",
                self.patience.as_secs()
            );
            return Answer::Cut;
        }
        if asked.press <= Instant::now() {
            asked.press += AGAIN;
            hears(vm);
        }
        Answer::Wait
    }

    /// How long until something is due.
    pub fn due(&self) -> Option<Duration> {
        let asked = self.asked.as_ref()?;
        let end = asked.at.checked_add(self.patience);
        let next = end.map_or(asked.press, |end| end.min(asked.press));
        Some(next.saturating_duration_since(Instant::now()))
    }
}

/// Asks a guest; one that is paused, or has ended, hears nothing.
fn hears(vm: &VmHandle) -> bool {
    vm.request_stop().unwrap_or(false)
}
