//! Whoever knows the control socket of a VM that runs can ask it for what can be done with it: [`Client`].
//!
//! The VM is an [`Instance`](crate::Instance) with such a [socket](crate::Surroundings::control), of this program or another
//! one, or one of `kvmlet run`. Whoever is to hold it, so that it ends with this program's word, [attaches](crate::Instance::attach).

mod guest;

pub use guest::Guest;
pub use kvmlet_control::agent::channel::{Ended, Output, ProcessSpec as Program};
pub use kvmlet_control::agent::{AgentError, CopyError, Execution, Owners, Process, Said, Streams};
pub use kvmlet_control::{
    Connection, ConnectionError, Limited, Order, Pool, PoolError, PoolStatus, Report, State, Taken,
};

use kvmlet_spec::{Memory, Outcome, RateLimit, Stats};
use kvmlet_vmm::snapshot::{Sink, write_whole};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a VM has for an answer where nothing else is said. It answers in a moment, but its host may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens there: the VM has ended, or this user may not.
    #[error("there is no VM at `{}`", path.display())]
    Unattached {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The VM has not done it.
    #[error(transparent)]
    Vm(#[from] ConnectionError),
    /// It says nothing of what it was asked for: it is of another version.
    #[error("the VM has not told its {0}")]
    Untold(&'static str),
    /// Its balloon counts mebibytes, 2^32 at most.
    #[error("a balloon holds whole mebibytes, and not {0}")]
    Size(Memory),
    /// What was asked of its guest is not done.
    #[error(transparent)]
    Guest(#[from] AgentError),
    /// What was to be copied is not.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A snapshot cannot be written.
    #[error("`{}` cannot be written", path.display())]
    Unwritten {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Somebody who asks a VM for things. There can be many; none is held up by another one.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    connection: Connection,
    patience: Duration,
}

/// What a VM does from now on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// It does that.
    To(State),
    /// It has ended, so.
    Ended(Box<Outcome>),
}

impl Client {
    /// Of the VM with that socket.
    ///
    /// # Errors
    /// [`Error::Unattached`] when nobody listens there.
    pub fn to(socket: &Path) -> Result<Self, Error> {
        let connection = Connection::to(socket).map_err(|source| Error::Unattached {
            path: socket.into(),
            source,
        })?;
        Ok(Self {
            socket: socket.into(),
            connection,
            patience: PATIENCE,
        })
    }

    /// The same, who waits that long for an answer, and not 30 seconds.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Asks for anything; returns what is told with the answer.
    ///
    /// # Errors
    /// [`Error::Vm`] with why it was not done.
    pub fn ask(&mut self, order: Order) -> Result<Vec<Report>, Error> {
        Ok(self.connection.ask(order, self.patience)?)
    }

    /// Has it stand still: when this returns, nothing changes guest memory.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn pause(&mut self) -> Result<(), Error> {
        self.ask(Order::Pause).map(drop)
    }

    /// Has it go on.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn resume(&mut self) -> Result<(), Error> {
        self.ask(Order::Resume).map(drop)
    }

    /// Has its guest end its service and power off, and cuts its power when the time is up. Returns when that is told.
    ///
    /// # Errors
    /// [`ConnectionError::Late`] when it has not ended within this client's patience beyond that time.
    pub fn stop(mut self, timeout: Duration) -> Result<Outcome, Error> {
        match self.ended(timeout) {
            Err(Error::Vm(ConnectionError::Over(outcome))) => Ok(*outcome),
            ended => ended,
        }
    }

    fn ended(&mut self, timeout: Duration) -> Result<Outcome, Error> {
        // Only who watches is told the end.
        self.ask(Order::Watch)?;
        let ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let patience_ms = Some(ms);
        self.ask(Order::Stop { patience_ms })?;
        let patience = timeout.saturating_add(self.patience);
        let deadline = Instant::now().checked_add(patience);
        loop {
            let next = self.connection.next(deadline)?;
            if let Report::Ended(outcome) = next.ok_or(ConnectionError::Late(patience))? {
                return Ok(*outcome);
            }
        }
    }

    /// Has its service take a signal, by its number. SIGKILL cuts its power.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn signal(&mut self, signal: u8) -> Result<(), Error> {
        self.ask(Order::Signal { signal }).map(drop)
    }

    /// Has its guest hear the machine's power button.
    ///
    /// # Errors
    /// As [`ask`](Self::ask): where no driver of the guest's listens, it is refused.
    pub fn press_power_button(&mut self) -> Result<(), Error> {
        self.ask(Order::Press).map(drop)
    }

    /// What it has done so far.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn stats(&mut self) -> Result<Stats, Error> {
        let told = self.ask(Order::Stats)?;
        let stats = told.iter().rev().find_map(|report| match report {
            Report::Stats(json) => serde_json::from_slice(json).ok(),
            _ => None,
        });
        stats.ok_or(Error::Untold("statistics"))
    }

    /// The same as OpenMetrics text, for a scraper.
    ///
    /// # Errors
    /// As [`to`](Self::to) and [`ask`](Self::ask).
    pub fn metrics(&self) -> Result<String, Error> {
        // It is the last that is told on a connection.
        let Self { connection, .. } = Self::to(&self.socket)?;
        Ok(connection.scrape(self.patience)?)
    }

    /// Has a disk or an interface do no more than that from now on.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn limit(&mut self, device: Limited, limit: RateLimit) -> Result<(), Error> {
        self.ask(Order::Limit { device, limit }).map(drop)
    }

    /// Has the guest give back that much of its memory, all in all.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and [`Error::Size`].
    pub fn balloon(&mut self, size: Memory) -> Result<(), Error> {
        const MIB: u64 = 1 << 20;
        let bytes = size.bytes();
        match u32::try_from(bytes / MIB) {
            Ok(mib) if bytes.is_multiple_of(MIB) => self.ask(Order::Balloon { mib }).map(drop),
            _ => Err(Error::Size(size)),
        }
    }

    /// Has it look how large the file behind a disk is now, by the disk's place, and tell the guest.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn resize(&mut self, disk: u8) -> Result<(), Error> {
        self.ask(Order::Resize { disk }).map(drop)
    }

    /// The ports of this host that lead to it, as configurations have them: `127.0.0.1:8080:80/tcp`.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn published(&mut self) -> Result<Vec<String>, Error> {
        let told = self.ask(Order::Published)?;
        let ports = told.into_iter().find_map(|report| match report {
            Report::Published(ports) => Some(ports),
            _ => None,
        });
        ports.ok_or(Error::Untold("ports"))
    }

    /// The addresses of its interfaces, as its guest is told: `eth0,10.0.0.2/30,gateway=10.0.0.1`.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn interfaces(&mut self) -> Result<Vec<String>, Error> {
        let told = self.ask(Order::Interfaces)?;
        let all = told.into_iter().find_map(|report| match report {
            Report::Interfaces(all) => Some(all),
            _ => None,
        });
        all.ok_or(Error::Untold("interfaces"))
    }

    /// Saves it to a file, while it goes on; returns how long it stood still for that. The file appears
    /// when it is whole and on the disk, for this user only, and replaces one that is there.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and [`Error::Unwritten`].
    pub fn save(&mut self, file: &Path) -> Result<Duration, Error> {
        self.write(file, false).map(|(stood_still, _)| stood_still)
    }

    /// Saves it to a file, as [`save`](Self::save) does, and ends it where it was: what goes on from that file
    /// ([`Instance::restore`](crate::Instance), `kvmlet restore`) has missed nothing. If it cannot be saved, it goes on. This is
    /// for VMs that nobody else keeps: of `kvmlet run` it is the keeper who suspends them.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn suspend(mut self, file: &Path) -> Result<Outcome, Error> {
        let (_, told) = self.write(file, true)?;
        // From here on it stands still for good, whatever becomes of this process.
        self.ask(Order::Suspended)?;
        drop(told);
        self.stop(Duration::ZERO)
    }

    /// Writes what it tells, until it has told all. One that `stays` stands still as long as what is returned is not closed.
    fn write(&mut self, file: &Path, stays: bool) -> Result<(Duration, File), Error> {
        let unwritten = |source: io::Error| Error::Unwritten {
            path: file.into(),
            source,
        };
        write_whole(file, unwritten, |new| {
            let begun = Instant::now();
            let saving = match stays {
                true => self.connection.suspend(self.patience)?,
                false => self.connection.save(self.patience)?,
            };
            let pieces = File::from(saving.pieces);
            let told = Sink::new(new, saving.most_bytes).fill(&pieces);
            if let Err(error) = told {
                // The VM knows why it has told no more, if that is what is wrong.
                if error.kind() == io::ErrorKind::UnexpectedEof {
                    self.connection.saved(saving.number, self.patience)?;
                }
                return Err(unwritten(error));
            }
            let stood_still = self.connection.saved(saving.number, self.patience)?;
            Ok((stood_still.unwrap_or_else(|| begun.elapsed()), pieces))
        })
    }

    /// Is told what it does now, and each change of that, its end last.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); it is refused where as many watch as may.
    pub fn watch(mut self) -> Result<Watch, Error> {
        let told = self.ask(Order::Watch)?;
        Ok(Watch {
            told: told.into(),
            connection: self.connection,
            has_ended: false,
        })
    }
}

/// What a VM does, as it comes.
#[derive(Debug)]
pub struct Watch {
    told: std::collections::VecDeque<Report>,
    connection: Connection,
    has_ended: bool,
}

impl Watch {
    /// What it does next; none if that does not change before the deadline, or it has ended. Without a deadline this may take
    /// for ever.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`] when its supervisor was killed.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Change>, Error> {
        while !self.has_ended {
            let report = match self.told.pop_front() {
                Some(report) => report,
                None => match self.connection.next(deadline)? {
                    Some(report) => report,
                    None => break,
                },
            };
            match report {
                Report::State(state) => return Ok(Some(Change::To(state))),
                Report::Ended(outcome) => {
                    self.has_ended = true;
                    return Ok(Some(Change::Ended(outcome)));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Readable when there is something.
impl std::os::fd::AsFd for Watch {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
