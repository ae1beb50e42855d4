//! An instance that this process alone does something with.

use super::record::{Outcome, Process, Record, State, Step};
use super::{Instance, OWNER, STATE, SUSPENDED};
use crate::slots::Slots;
use crate::{Error, Moment};
use kvmlet_sys::byte_lock;
use rustix::fs::fstat;
use std::fs::File;
use std::ops::Deref;
use std::time::{Duration, Instant};

/// The code of one that nobody will resume: that of a process that was killed.
const CUT: u8 = 137;
/// How long a supervisor may take that has told the end, or a VM whose supervisor was killed, until it is gone itself.
const ENDING: Duration = Duration::from_secs(5);

/// An instance that nobody else starts, changes or removes as long as this lives.
#[derive(Debug)]
pub struct Owned {
    instance: Instance,
    record: Record,
    slots: Slots,
    /// The owner's lock, and while it runs its own: of its own opening, so that it is given back by closing.
    lock: File,
}

impl Owned {
    pub(super) fn of(instance: &Instance) -> Result<Self, Error> {
        let lock = instance.open_lock()?;
        let path = instance.path(super::LOCK);
        let deadline = Instant::now() + ENDING;
        while !byte_lock::try_lock(&lock, OWNER).map_err(Error::file(&path))? {
            let state = instance.state()?;
            let ends = matches!(state, State::Exited | State::Dead | State::Suspended);
            if !ends || Instant::now() >= deadline {
                let called = instance.called();
                return Err(Error::InUse { called, state });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // It may have been removed before the lock was ours.
        if !instance.is_there()? {
            let reference = instance.called();
            return Err(Error::NotFound { reference });
        }
        let state = instance.directory.open_or_make(STATE);
        let slots = state.and_then(Slots::of);
        Ok(Self {
            slots: slots.map_err(Error::file(&instance.path(STATE)))?,
            record: instance.record()?,
            instance: instance.try_clone()?,
            lock,
        })
    }

    /// What is noted of it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Notes whether somebody has stopped it.
    ///
    /// # Errors
    /// When it cannot be written; what was noted before is then, too.
    pub fn set_stopped(&mut self, stopped: bool) -> Result<(), Error> {
        let mut record = self.record.clone();
        record.stopped = stopped;
        self.write(record)
    }

    /// Becomes the supervisor of a new run, until that is [told](Keeper::end) to have ended, or this process ends.
    ///
    /// # Errors
    /// When the instance runs, but from another copy of this book.
    pub fn begin(mut self) -> Result<Keeper, Error> {
        if let Some(pid) = self.runs_elsewhere()? {
            let called = self.instance.called();
            return Err(Error::RunsElsewhere { called, pid });
        }
        let path = self.instance.path(super::LOCK);
        let stat = fstat(&self.lock).map_err(|error| Error::file(&path)(error.into()))?;
        let run = self.record.run + 1;
        // Before it is noted, so that nobody sees a run without its supervisor. Nobody else has a reason to lock this byte.
        byte_lock::try_lock(&self.lock, run).map_err(Error::file(&path))?;
        let resumed = self.record.step == Step::Suspended;
        let record = Record {
            run,
            // It can be resumed until its VM has run again.
            step: if resumed {
                Step::Suspended
            } else {
                Step::Starting
            },
            keeper: Some(Process::this()),
            lock: Some((stat.st_dev, stat.st_ino)),
            started: self.record.started,
            restarts: 0,
            stopped: false,
            health: None,
            outcome: self.record.outcome.clone(),
            suspended: self.record.suspended,
            unresumed: None,
            resumed,
            idle: resumed && self.record.idle,
            sleeps: false,
            suspensions: self.record.suspensions,
        };
        if !resumed {
            // What was saved of a run whose supervisor was killed before it had noted that. Where it cannot be removed, nothing begins.
            self.instance.forget_saved()?;
        }
        self.write(record)?;
        Ok(Keeper(self))
    }

    /// Gives up what a suspended one was to go on from: it has ended, as if its power had been cut. Nothing of another one.
    ///
    /// # Errors
    /// When it cannot be written; it is suspended then.
    pub fn give_up_saved(&mut self) -> Result<(), Error> {
        if self.record.step != Step::Suspended {
            return Ok(());
        }
        let mut record = self.record.clone();
        record.ends(Step::Exited, CUT, None);
        self.write(record)?;
        self.instance.forget_saved()
    }

    /// The supervisor of an instance whose book was copied while it ran.
    fn runs_elsewhere(&self) -> Result<Option<u32>, Error> {
        let is_copy = self.instance.is_copy(&self.record)?;
        let keeper = self.record.keeper.as_ref().filter(|_| is_copy);
        let lives = keeper.filter(|keeper| keeper.lives());
        let is_dead = self.record.state(false) == State::Dead;
        Ok(lives.filter(|_| is_dead).map(|keeper| keeper.pid))
    }

    fn write(&mut self, record: Record) -> Result<(), Error> {
        let written = self.slots.write(&record);
        written.map_err(Error::file(&self.instance.path(STATE)))?;
        self.record = record;
        Ok(())
    }
}

impl Deref for Owned {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

/// The supervisor of a run. Dropping it without [`end`](Self::end) is as if it was killed.
#[derive(Debug)]
pub struct Keeper(Owned);

impl Keeper {
    /// What is noted of the instance.
    pub fn record(&self) -> &Record {
        &self.0.record
    }

    /// The lock, for a program that is to keep the instance from being taken as long as it runs.
    pub(crate) fn lock(&self) -> &File {
        &self.0.lock
    }

    /// Tells that the VM runs.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn running(&mut self) -> Result<(), Error> {
        let started = match self.record().step {
            Step::Paused => self.record().started,
            _ => Some(Moment::now()),
        };
        self.change(|record| (record.step, record.started) = (Step::Running, started))
    }

    /// Tells that the VM stands still.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn paused(&mut self) -> Result<(), Error> {
        self.change(|record| record.step = Step::Paused)
    }

    /// Tells that its VM is in its file, `by_itself` or as somebody wanted, and does not run any more; that survives a loss of power, as the file does.
    ///
    /// # Errors
    /// When it cannot be written, or there is no file: what was noted before is then.
    pub fn suspended(&mut self, by_itself: bool) -> Result<(), Error> {
        let path = self.path(SUSPENDED);
        self.directory
            .open_existing(SUSPENDED)
            .map_err(Error::file(&path))?;
        let before = self.record().clone();
        let since = Moment::now();
        self.change(|record| {
            record.step = Step::Suspended;
            record.suspended = Some(since);
            (record.unresumed, record.health) = (None, None);
            record.idle = by_itself;
            record.suspensions += 1;
        })?;
        self.sync().or_else(|error| {
            self.0.write(before)?;
            Err(error)
        })
    }

    /// Tells that the VM of a suspended one is gone, and that it goes on when it is wanted.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sleeps(&mut self) -> Result<(), Error> {
        self.change(|record| record.sleeps = true)
    }

    /// Tells that it is wanted.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn wakes(&mut self) -> Result<(), Error> {
        self.change(|record| (record.resumed, record.unresumed) = (true, None))
    }

    /// Tells that the VM of a suspended one is about to run, which then has no file any more, whatever becomes of this host.
    ///
    /// # Errors
    /// When it cannot be written: its VM must not run then.
    pub fn goes_on(&mut self) -> Result<(), Error> {
        self.change(|record| {
            (record.step, record.suspended) = (Step::Starting, None);
            (record.idle, record.sleeps) = (false, false);
        })?;
        self.sync()?;
        // It is in the VM's memory, and for nobody else.
        self.forget_saved_if_possible();
        Ok(())
    }

    /// Tells why it cannot be resumed, and stays suspended.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn not_resumed(&mut self, error: &str) -> Result<(), Error> {
        self.change(|record| record.unresumed = Some(cut(error).into()))
    }

    /// The supervisor's turn is over, and its VM is in its file.
    ///
    /// # Errors
    /// As [`end`](Self::end).
    pub fn stay_suspended(mut self) -> Result<Owned, Error> {
        self.change(|record| record.sleeps = false)?;
        self.leave()
    }

    /// Tells how the VM has ended, which is going to be started once more.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn restarting(&mut self, code: u8, error: Option<&str>) -> Result<(), Error> {
        self.ended(Step::Restarting, code, error)?;
        self.change(|record| record.restarts = record.restarts.saturating_add(1))
    }

    /// Tells whether the service is well.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn health(&mut self, health: Option<&str>) -> Result<(), Error> {
        self.change(|record| record.health = health.map(Into::into))
    }

    /// Tells whether somebody has stopped it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn stopped(&mut self, stopped: bool) -> Result<(), Error> {
        self.change(|record| record.stopped = stopped)
    }

    /// Tells how the VM has ended, for good. The supervisor's turn is over.
    ///
    /// # Errors
    /// When it cannot be written: then all others see a supervisor that was killed.
    pub fn end(mut self, code: u8, error: Option<&str>) -> Result<Owned, Error> {
        self.ended(Step::Exited, code, error)?;
        self.leave()
    }

    fn leave(self) -> Result<Owned, Error> {
        let Self(owned) = self;
        let path = owned.instance.path(super::LOCK);
        byte_lock::unlock(&owned.lock, owned.record.run).map_err(Error::file(&path))?;
        Ok(owned)
    }

    /// Has what was noted survive a loss of power.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sync(&self) -> Result<(), Error> {
        let synced = self.0.slots.sync();
        synced.map_err(Error::file(&self.0.instance.path(STATE)))
    }

    fn ended(&mut self, step: Step, code: u8, error: Option<&str>) -> Result<(), Error> {
        self.change(|record| record.ends(step, code, error))?;
        // Of a save that nobody has brought to its end.
        self.forget_saved_if_possible();
        Ok(())
    }

    fn forget_saved_if_possible(&self) {
        if let Err(error) = self.forget_saved() {
            log::warn!("what was saved is left over: {error}");
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let mut record = self.0.record.clone();
        change(&mut record);
        self.0.write(record)
    }
}

impl Record {
    /// The last run has ended.
    fn ends(&mut self, step: Step, code: u8, error: Option<&str>) {
        let outcome = Outcome {
            run: self.run,
            code,
            ended: Moment::now(),
            error: error.map(|text| cut(text).into()),
        };
        (self.step, self.outcome, self.health, self.suspended) = (step, Some(outcome), None, None);
        (self.idle, self.sleeps) = (false, false);
    }
}

impl Deref for Keeper {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.0.instance
    }
}

/// As much of a text as there is room for: each byte may take six in JSON.
fn cut(text: &str) -> &str {
    let mut room = Outcome::ERROR_BYTES;
    let fits = |(_, c): &(usize, char)| {
        let takes = match c {
            '"' | '\\' => 2,
            c if c.is_control() => 6,
            c => c.len_utf8(),
        };
        let left = room.checked_sub(takes);
        room = left.unwrap_or(0);
        left.is_some()
    };
    let end = text.char_indices().take_while(fits).last();
    &text[..end.map_or(0, |(at, c)| at + c.len_utf8())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(""), "");
        assert_eq!(cut(&"\u{e9}".repeat(600)).len(), Outcome::ERROR_BYTES);
        assert_eq!(cut(&"\u{1}".repeat(600)).len(), Outcome::ERROR_BYTES / 6);
    }
}
