//! One instance: a directory of its own in the book.
//!
//! - `lock`: byte 0 is locked by whoever does something with the instance, byte N by the supervisor of its Nth run, and one far
//!   behind by whoever has the [turn](Turn).
//! - `spec.json`: what was asked, [sealed](crate::sealed), written once.
//! - `control.sock`: where its VM's supervisor [can be asked](crate::Control), while it runs.
//! - `name`: a link that says what it is called, so that not all names have to be read; it may be missing, or wrong.
//! - [`suspended`](SUSPENDED): its VM, while that is in a file.
//! - `state`: how far the supervisor has come, and how the last run has ended, in [slots](crate::slots).
//!
//! Whether it runs is what the lock says, and never what is written: a supervisor that is killed takes its lock along.

mod asked;
mod mount;
mod owned;
mod record;
mod service;
mod turn;

pub use asked::{Asked, LogLimits};
pub use mount::Mount;
pub use owned::{Keeper, Owned};
pub use record::{End, Outcome, Process, Record, State, Step};
pub use service::{Service, Text};
pub use turn::{Given, Giving, Turn};

use crate::sealed::{self, Broken};
use crate::slots::{self, Slots};
use crate::watch::Watch;
use crate::{Error, InstanceId, Name};
use kvmlet_sys::byte_lock;
use kvmlet_sys::directory::Directory;
use rustix::fs::{Mode, OFlags, fstat, openat};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const LOCK: &str = "lock";
const SPEC: &str = "spec.json";
const STATE: &str = "state";
/// The name of the file in its directory that the VM of a suspended one is in. It is believed only if the record says so.
pub const SUSPENDED: &str = "suspended";
/// No text of what was asked is longer: an environment of a hundred variables, one of them of 128 KiB.
const SPEC_BYTES: u64 = 4 << 20;
/// Between two looks at one that holds its lock while it is suspended: at first, and at the most.
const LOOKS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];
/// The byte that its owner locks.
const OWNER: u64 = 0;

/// An instance, as it is when it is asked.
#[derive(Debug)]
pub struct Instance {
    id: InstanceId,
    /// Where all of them are.
    around: Arc<Directory>,
    directory: Directory,
    lock: File,
    state: File,
}

/// All that is known of an instance at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Its id.
    pub id: InstanceId,
    /// What it is called, unless it is being removed.
    pub name: Option<Name>,
    /// What it is doing.
    pub state: State,
    /// What was asked.
    pub asked: Asked,
    /// What its supervisors have noted.
    pub record: Record,
    /// How its last run has ended; none while it runs.
    pub end: Option<End>,
}

impl View {
    /// Its name, or the beginning of its id.
    pub fn called(&self) -> &str {
        self.name.as_ref().map_or(self.id.short(), Name::as_str)
    }
}

impl Instance {
    /// Writes the files of a new one into a directory, which nobody knows yet.
    pub(crate) fn make(directory: &Directory, asked: &Asked) -> io::Result<()> {
        directory.make_new(LOCK)?;
        let text = sealed::seal(asked)?;
        if text.len() as u64 > SPEC_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        directory.make_new(SPEC)?.write_all(&text)?;
        Slots::make(directory, STATE, &Record::NEW)
    }

    /// The one of that id.
    pub(crate) fn open(around: &Arc<Directory>, id: InstanceId) -> Result<Self, Error> {
        let path = around.path().join(id.as_str());
        let not_found = || Error::NotFound {
            reference: id.short().into(),
        };
        let directory = around.existing_subdirectory(id.as_str());
        let directory = directory.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => not_found(),
            _ => Error::file(&path)(error),
        })?;
        let open = |name| {
            let file = directory.open_existing(name);
            file.map_err(|error| match error.kind() {
                // Somebody has removed it meanwhile.
                io::ErrorKind::NotFound
                    if matches!(is_entry(around, &id, &directory), Ok(false)) =>
                {
                    not_found()
                }
                // The power was lost while it was made.
                io::ErrorKind::NotFound => Error::broken(&path.join(name))(Broken::Cut),
                _ => Error::file(&path.join(name))(error),
            })
        };
        let (lock, state) = (open(LOCK)?, open(STATE)?);
        Ok(Self {
            id,
            around: around.clone(),
            lock,
            state,
            directory,
        })
    }

    /// Its id.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Its directory, for what else is kept of it: its log, its control socket.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What was asked.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written.
    pub fn asked(&self) -> Result<Asked, Error> {
        let path = self.path(SPEC);
        let text = self.directory.read(SPEC, SPEC_BYTES);
        let text = match text.map_err(Error::file(&path))? {
            Some(text) => text,
            None if self.is_there()? => Vec::new(),
            // Somebody has removed it meanwhile.
            None => {
                let reference = self.called();
                return Err(Error::NotFound { reference });
            }
        };
        let asked: Asked = sealed::open(&text).map_err(Error::broken(&path))?;
        // Two directories with one id would be two owners of it.
        match asked.id == self.id {
            true => Ok(asked),
            false => Err(Error::broken(&path)(Broken::Changed)),
        }
    }

    /// What its supervisors have noted.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written.
    pub fn record(&self) -> Result<Record, Error> {
        let path = self.path(STATE);
        let record = slots::read(&self.state).map_err(Error::file(&path))?;
        record.map_err(Error::broken(&path))
    }

    /// What it is doing.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn state(&self) -> Result<State, Error> {
        let (record, lives) = self.record_and_life()?;
        Ok(record.state(lives))
    }

    /// All that is known of it. Its name is the book's matter.
    ///
    /// # Errors
    /// As [`asked`](Self::asked) and [`record`](Self::record).
    pub fn view(&self, name: Option<Name>) -> Result<View, Error> {
        let (record, lives) = self.record_and_life()?;
        Ok(View {
            id: self.id.clone(),
            name,
            state: record.state(lives),
            asked: self.asked()?,
            end: (!lives).then(|| self.end_of(&record)).transpose()?,
            record,
        })
    }

    /// Waits until it has ended, however long that takes, and tells how. One that does not run has ended already, and one that is
    /// suspended has not.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn wait(&self) -> Result<End, Error> {
        loop {
            let end = self.wait_for_run()?;
            if end != End::Suspended {
                return Ok(end);
            }
            let path = self.directory.path();
            let watch = Watch::on(&self.directory).map_err(Error::file(path))?;
            while self.record()?.step == Step::Suspended {
                watch.wait_for_change().map_err(Error::file(path))?;
            }
        }
    }

    /// The same of the run that there is now, which a suspension ends, too.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn wait_for_run(&self) -> Result<End, Error> {
        let run = self.record()?.run;
        let path = self.path(LOCK);
        let may_sleep = match self.asked() {
            Ok(asked) => asked.idle.is_some(),
            // It is being removed at its end, and what is open of it can be read on.
            Err(Error::NotFound { .. }) => false,
            Err(error) => return Err(error),
        };
        if run > 0 && !may_sleep {
            byte_lock::wait_until_free(&self.lock, run).map_err(Error::file(&path))?;
        }
        // That of one whose supervisor lives on while it is suspended has the lock still.
        let mut pause = LOOKS[0];
        while run > 0 && byte_lock::is_locked(&self.lock, run).map_err(Error::file(&path))? {
            let record = self.record()?;
            if record.step == Step::Suspended && record.sleeps {
                return Ok(End::Suspended);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOOKS[1]);
        }
        let record = self.record()?;
        match &record.outcome {
            // It may have been started and have ended once more.
            Some(outcome) if outcome.run >= run && record.run > run => {
                Ok(End::Told(outcome.clone()))
            }
            _ if record.run > run && record.resumed => Ok(End::Suspended),
            _ if record.run > run => Ok(End::Killed),
            _ => self.end_of(&record),
        }
    }

    /// Takes it, so that nobody else starts, changes or removes it.
    ///
    /// # Errors
    /// When somebody else has it, or it is gone.
    pub fn own(&self) -> Result<Owned, Error> {
        Owned::of(self)
    }

    /// Has what was asked survive a loss of power.
    ///
    /// # Errors
    /// When the host cannot.
    pub fn sync(&self) -> Result<(), Error> {
        for name in [SPEC, STATE] {
            let synced = self
                .directory
                .open_existing(name)
                .and_then(|file| file.sync_all());
            synced.map_err(Error::file(&self.path(name)))?;
        }
        for directory in [&self.directory, &*self.around] {
            let synced = rustix::fs::fsync(directory);
            synced.map_err(|error| Error::file(directory.path())(error.into()))?;
        }
        Ok(())
    }

    /// What is noted, and whether the supervisor that has noted it lives. The lock is looked at between two looks at what
    /// is written that see the same run.
    fn record_and_life(&self) -> Result<(Record, bool), Error> {
        let mut record = self.record()?;
        loop {
            let path = self.path(LOCK);
            let lives = byte_lock::is_locked(&self.lock, record.run.max(1));
            let lives = lives.map_err(Error::file(&path))? && record.run > 0;
            // What it told last before it ended.
            let again = self.record()?;
            if again.run == record.run {
                return Ok((again, lives));
            }
            record = again;
        }
    }

    fn end_of(&self, record: &Record) -> Result<End, Error> {
        let this_boot = record.keeper.as_ref().is_none_or(Process::is_of_this_boot);
        Ok(match &record.outcome {
            Some(outcome) if record.step == Step::Exited => End::Told(outcome.clone()),
            _ if record.step == Step::Suspended => End::Suspended,
            _ if record.run == 0 => End::NeverRan,
            _ if !this_boot => End::HostRestarted,
            _ if self.is_copy(record)? => End::Copied,
            _ => End::Killed,
        })
    }

    /// Was this written by a supervisor that had another file locked?
    fn is_copy(&self, record: &Record) -> Result<bool, Error> {
        let stat =
            fstat(&self.lock).map_err(|error| Error::file(&self.path(LOCK))(error.into()))?;
        Ok(record
            .lock
            .is_some_and(|lock| lock != (stat.st_dev, stat.st_ino)))
    }

    /// Is it still the one in the book?
    fn is_there(&self) -> Result<bool, Error> {
        let there = is_entry(&self.around, &self.id, &self.directory);
        there.map_err(Error::file(self.directory.path()))
    }

    /// Removes the file that its VM was saved in, if there is one.
    pub(crate) fn forget_saved(&self) -> Result<(), Error> {
        let removed = self.directory.remove(SUSPENDED);
        removed.map_err(Error::file(&self.path(SUSPENDED)))
    }

    fn open_lock(&self) -> Result<File, Error> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = openat(&self.directory, LOCK, flags, Mode::empty());
        lock.map(File::from).map_err(|error| match error {
            rustix::io::Errno::NOENT => Error::NotFound {
                reference: self.called(),
            },
            error => Error::file(&self.path(LOCK))(error.into()),
        })
    }

    fn try_clone(&self) -> Result<Self, Error> {
        let failed = Error::file(self.directory.path());
        Ok(Self {
            id: self.id.clone(),
            around: self.around.clone(),
            directory: self.directory.try_clone().map_err(&failed)?,
            lock: self.lock.try_clone().map_err(&failed)?,
            state: self.state.try_clone().map_err(&failed)?,
        })
    }

    pub(crate) fn called(&self) -> String {
        self.id.short().into()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Is that directory the instance's in the book?
fn is_entry(around: &Directory, id: &InstanceId, directory: &Directory) -> io::Result<bool> {
    let mine = directory.stat()?;
    match around.stat_entry(Path::new(id.as_str())) {
        Ok(found) => Ok((found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
