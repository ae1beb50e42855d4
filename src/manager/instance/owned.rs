//! An instance that this process alone does something with.

use super::record::{Outcome, Process, Record, State, Step};
use super::{Instance, OWNER, STATE};
use crate::slots::Slots;
use crate::{Error, Moment};
use kvmlet_sys::byte_lock;
use rustix::fs::fstat;
use std::fs::File;
use std::ops::Deref;
use std::time::{Duration, Instant};

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
            let ends = matches!(state, State::Exited | State::Dead);
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
        let record = Record {
            run,
            step: Step::Starting,
            keeper: Some(Process::this()),
            lock: Some((stat.st_dev, stat.st_ino)),
            started: self.record.started,
            restarts: 0,
            stopped: false,
            health: None,
            outcome: self.record.outcome.clone(),
        };
        self.write(record)?;
        Ok(Keeper(self))
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
        let outcome = Outcome {
            run: self.record().run,
            code,
            ended: Moment::now(),
            error: error.map(|text| cut(text).into()),
        };
        self.change(|record| {
            (record.step, record.outcome, record.health) = (step, Some(outcome), None);
        })
    }

    fn change(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let mut record = self.0.record.clone();
        change(&mut record);
        self.0.write(record)
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
