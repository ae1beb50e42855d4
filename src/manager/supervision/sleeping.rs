//! An instance that is suspended by itself when nobody has used it for long enough, and goes on when somebody wants something
//! of it. Its supervisor lives on, and with it the process that holds what its VM has of the host.

use super::audience::Audience;
use super::channel::Channel;
use super::checks::Checks;
use super::running::Running;
use super::{Noted, Supervisor};
use crate::Error;
use kvmlet_sys::wait::{self, Slot, Until};
use std::os::fd::AsFd;
use std::time::Duration;

/// The signal that has a supervisor go on with a VM that it holds the networks of.
pub(crate) const GO_ON: libc::c_int = libc::SIGUSR1;
/// How much later it is tried again what has failed, beside the time that it is to be idle.
const AGAIN: Duration = Duration::from_secs(30);

/// Why one goes on that was suspended.
const BY_TRAFFIC: &str = "traffic";
const BY_ORDER: &str = "order";

impl Supervisor<'_> {
    /// Looks whether its service is used, and has it suspended if it was not for long enough.
    pub(super) fn look_for_idleness(&mut self, running: &mut Running, channel: Option<&Channel>) {
        let (Some(nap), Some(idle)) = (&mut self.nap, &mut self.idle) else {
            return;
        };
        nap.hear();
        let (said, told) = (nap.has_ended(), nap.told());
        // What comes of a VM that is in its file is another matter.
        if let Some(said) = said.filter(|_| self.by_itself && !self.suspended) {
            let span = idle.span();
            idle.put_off(span.saturating_add(AGAIN));
            self.by_itself = false;
            let again = nap.doze(false);
            let why = if said.is_empty() {
                "it does not say why"
            } else {
                &said
            };
            self.say(&format!(
                "kvmlet: nobody uses the service, and it cannot be suspended: {why}"
            ));
            if let Err(error) = again {
                self.say(&format!("kvmlet: its network is not as it was: {error}"));
            }
            return self.say_all(told);
        }
        self.say_all(told);
        let (Some(nap), Some(idle)) = (&mut self.nap, &mut self.idle) else {
            return;
        };
        let checks = self.checks.as_ref();
        if checks.is_some_and(Checks::is_busy) {
            idle.is_checked();
        }
        let is_attended = self.audience.as_ref().is_some_and(Audience::is_there);
        let runs = self.keeper.record().step == Noted::Running && channel.is_none_or(Channel::runs);
        if is_attended || self.stopped || self.suspended || !runs {
            idle.is_used();
        }
        if idle.looks() && runs {
            running.ask_for_stats();
        }
        let is_idle = running.stats().is_some_and(|stats| idle.take(&stats));
        if !is_idle || self.by_itself {
            return;
        }
        self.by_itself = true;
        // From here on nothing of what comes for it is lost.
        let begun = nap.doze(true).and_then(|()| nap.suspend());
        if let Err(error) = begun {
            let span = idle.span();
            idle.put_off(span.saturating_add(AGAIN));
            self.by_itself = false;
            let _ = nap.doze(false);
            self.say(&format!("kvmlet: the service cannot be suspended: {error}"));
        }
    }

    fn say_all(&mut self, told: Vec<String>) {
        told.iter()
            .for_each(|text| self.say(&format!("kvmlet: {text}")));
    }

    /// It is suspended: what comes for it waits.
    pub(super) fn hold(&mut self) {
        let held = self.nap.as_mut().map_or(Ok(()), |nap| nap.doze(true));
        if let Err(error) = held {
            self.say(&format!(
                "kvmlet: nothing that comes for it wakes it: {error}"
            ));
        }
    }

    /// Its VM is gone, and what it has of the host is held until somebody wants something of it: true. False if its supervisor's
    /// turn is over.
    pub(super) fn sleep(&mut self) -> Result<bool, Error> {
        // Whoever was attached was told.
        (self.audience, self.by_itself) = (None, false);
        // Somebody has wanted its end while it was noted.
        if self.stopped {
            return Ok(false);
        }
        self.keeper.sleeps()?;
        let path = self.keeper.directory().path().to_path_buf();
        let why = loop {
            let Some(nap) = &mut self.nap else {
                return Ok(false);
            };
            let mut slots = [Slot::readable(self.signals.as_fd()), nap.slot()];
            wait::any_of(&mut slots, Until::Forever).map_err(Error::file(&path))?;
            nap.hear();
            let (told, is_gone, is_wanted) = (nap.told(), nap.is_gone(), nap.is_wanted());
            self.say_all(told);
            if is_gone {
                return Ok(false);
            }
            if is_wanted {
                break BY_TRAFFIC;
            }
            match self.signals.next_sent().map_err(Error::file(&path))? {
                Some(sent) if sent.signal == GO_ON => break BY_ORDER,
                // Whoever wants its end gives up what it is in; whoever ends the host does not.
                Some(_) => return Ok(false),
                None => {}
            }
        };
        self.audience = match Audience::listen(self.keeper.directory()) {
            Ok(audience) => Some(audience),
            Err(error) => return Err(Error::file(&path)(error)),
        };
        self.keeper.wakes()?;
        (self.suspended, self.resumes, self.restores) = (false, true, true);
        self.woken_by = Some(why);
        self.say(match why {
            BY_TRAFFIC => "kvmlet: the service is wanted",
            _ => "kvmlet: the service is to go on",
        });
        Ok(true)
    }
}
