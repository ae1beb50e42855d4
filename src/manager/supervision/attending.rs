//! What a supervisor does for a VM that runs: it takes what that writes, and joins its service and those who are attached.

use super::audience::{Audience, Wish};
use super::channel::{Channel, Told as Word};
use super::running::Running;
use super::stopping::Manner;
use super::timekeeping::Correction;
use super::{Supervisor, Told};
use crate::health::Health;
use crate::logs::Stream;
use crate::{Error, Moment};
use kvmlet_control::agent::channel::StopStep;
use kvmlet_sys::signals::{self, ENDING};
use kvmlet_sys::wait::{self, Slot, Until};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long whoever is attached may take for the last of what a service wrote.
const AUDIENCE_PATIENCE: Duration = Duration::from_secs(30);

impl Supervisor<'_> {
    /// Takes what the program and its guest have written and told.
    pub(super) fn attend(
        &mut self,
        running: &mut Running,
        channel: Option<&mut Channel>,
        told: &mut Option<Told<'_>>,
    ) -> Result<(), Error> {
        let now = Moment::now();
        if let Some(log) = &mut self.log {
            running.read(|stream, bytes| log.write(stream, bytes, now));
        }
        if let Some(channel) = channel {
            self.hear(running, channel, told)?;
            self.pass_on(running, channel)?;
            self.look_after(running, channel)?;
            if let Some(why) = channel.overdue() {
                self.say(&format!("kvmlet: the guest's power is cut: {why}"));
                running.cut();
            }
        }
        if let Some(log) = &mut self.log {
            log.give_up_waiting(now);
        }
        Ok(())
    }

    /// Whoever is expected may have been killed, and never be attached: the VM ends then.
    pub(super) fn expect(&mut self, who: &mut Option<BorrowedFd<'_>>, running: &mut Running) {
        if self.audience.as_ref().is_some_and(Audience::is_there) {
            *who = None;
        }
        let is_gone = |fd| wait::one(Slot::broken(fd), Until::Now).unwrap_or(true);
        if who.is_some_and(is_gone) {
            *who = None;
            self.say("kvmlet: the VM is ended: who has started it was gone before its service was to begin");
            running.cut();
        }
    }

    fn hear(
        &mut self,
        running: &mut Running,
        channel: &mut Channel,
        told: &mut Option<Told<'_>>,
    ) -> Result<(), Error> {
        let mut result = Ok(());
        channel.turn(&mut |word| match word {
            Word::Started => {
                running.service_runs();
                result = self.runs(told);
                if let Some(audience) = &mut self.audience {
                    audience.started();
                }
            }
            Word::Wrote(stream, bytes) => {
                if let Some(audience) = &mut self.audience {
                    audience.wrote(stream, bytes);
                }
                if let Some(log) = &mut self.log {
                    log.write(stream, bytes, Moment::now());
                }
            }
            Word::Stopping(StopStep::Signalled { signal }) => {
                let seconds = self.stop_timeout.as_secs();
                let signal = signals::name(signal);
                self.say(&format!(
                    "kvmlet: the service was sent {signal}, and has {seconds} s to end"
                ));
            }
            Word::Stopping(StopStep::Killed) => self.say("kvmlet: the service was killed"),
            Word::ClockSet(Correction { by, behind, .. }) => {
                let seconds = by.as_secs_f64().round();
                let which = if behind { "behind" } else { "ahead" };
                self.say(&format!(
                    "kvmlet: the guest's clock was set: it was {seconds} s {which}"
                ));
            }
        });
        result
    }

    /// Tells those who are attached what they have not heard, and passes on what they say.
    fn pass_on(&mut self, running: &mut Running, channel: &mut Channel) -> Result<(), Error> {
        let Some(audience) = &mut self.audience else {
            return Ok(());
        };
        if let Some(end) = channel.end() {
            audience.ended(end);
        }
        let mut wishes = Vec::new();
        audience.turn(channel.client(), &mut wishes);
        if audience.is_there() {
            channel.release();
        }
        for wish in wishes {
            let (asker, done) = match wish {
                Wish::Signal {
                    signal,
                    group,
                    asker,
                } => {
                    let taken = channel.signal(signal, group);
                    if taken {
                        self.note_signal(signal)?;
                    } else if asker.is_none() && ENDING.contains(&signal.into()) {
                        // Before the service runs it is the machine that is told.
                        let ending = libc::c_int::from(signal).into();
                        self.stop(ending, Manner::Usual, running, Some(&mut *channel))?;
                    }
                    (asker, taken)
                }
                Wish::Stop {
                    signal,
                    timeout,
                    asker,
                } => {
                    let manner = Manner::Asked { signal, timeout };
                    self.stop(libc::SIGTERM.into(), manner, running, Some(&mut *channel))?;
                    (Some(asker), true)
                }
            };
            if let (Some(asker), Some(audience)) = (asker, &mut self.audience) {
                audience.answer(asker, done);
            }
        }
        Ok(())
    }

    /// Asks for the service's health, and tells where that has changed.
    fn look_after(&mut self, running: &mut Running, channel: &mut Channel) -> Result<(), Error> {
        if self.stopped || !channel.runs() {
            // Whatever a service that is ending says of itself.
            self.checks = None;
        }
        let (Some(checks), Some(spec)) = (&mut self.checks, &self.check) else {
            return Ok(());
        };
        let Some(health) = checks.turn(self.keeper.directory(), spec) else {
            return Ok(());
        };
        let reason = checks.reason();
        let restart = spec.check.restart && health == Health::Unhealthy;
        self.keeper.health(Some(health.name()))?;
        self.tell("health_status", [("health_status", health.to_string())]);
        if health == Health::Healthy {
            self.is_well();
        }
        if health == Health::Unhealthy {
            self.say(&format!("kvmlet: the service is unhealthy: {reason}"));
        }
        if restart {
            self.say("kvmlet: the service is stopped, to be started again");
            (self.unwell, self.checks) = (true, None);
            if !channel.stop(None, None, self.stop_timeout) {
                running.cut();
            }
        }
        Ok(())
    }

    /// Whoever is attached has this long to take the rest.
    fn see_off(&mut self) {
        let deadline = Instant::now() + AUDIENCE_PATIENCE;
        let Some(audience) = &mut self.audience else {
            return;
        };
        loop {
            audience.turn(None, &mut Vec::new());
            if audience.has_all() {
                break;
            }
            let mut slots: Vec<_> = audience.slots().collect();
            slots.push(Slot::readable(self.signals.as_fd()));
            let due = audience.due().into_iter().fold(deadline, Instant::min);
            let waited = wait::any_of(&mut slots, Until::Deadline(due));
            let hurried = slots.pop().is_some_and(|slot| slot.is_ready());
            if waited.is_err() || hurried || Instant::now() >= deadline {
                break;
            }
        }
        let missed = audience.leave();
        if missed > 0 {
            let seconds = AUDIENCE_PATIENCE.as_secs();
            self.say(&format!(
                "kvmlet: {missed} bytes of the service's output were not read within {seconds} s of its end by who was attached; `kvmlet logs` has them"
            ));
        }
    }

    /// Notes something in the log.
    pub(super) fn say(&mut self, text: &str) {
        if let Some(log) = &mut self.log {
            log.write(
                Stream::Kvmlet,
                format!("{text}\n").as_bytes(),
                Moment::now(),
            );
        }
    }

    /// What was written before the end. A process that has the pipes still, and writes on, is not waited for.
    pub(super) fn read_rest(
        &mut self,
        running: &mut Running,
        mut channel: Option<&mut Channel>,
        told: &mut Option<Told<'_>>,
    ) -> Result<(), Error> {
        const MOST: usize = 64;
        if let Some(log) = &mut self.log {
            let now = Moment::now();
            let mut read = || running.read(|stream, bytes| log.write(stream, bytes, now));
            let _ = (0..MOST).find(|_| !read());
        }
        if let Some(channel) = &mut channel {
            for _ in 0..MOST {
                self.hear(running, channel, told)?;
                self.pass_on(running, channel)?;
                // Whoever could write more is gone.
                if wait::any(channel.slots(), Until::Now).unwrap_or_default() == [false; 2] {
                    break;
                }
            }
            let why = match self.suspended {
                true => Some("it is suspended"),
                false => channel.broken(),
            };
            if let (Some(audience), Some(why)) = (&mut self.audience, why) {
                audience.broken(why);
            }
        }
        self.see_off();
        Ok(())
    }
}
