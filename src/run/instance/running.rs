//! An instance that runs, as the program that holds it sees it.

use super::link::Link;
use super::surroundings::Streams;
use crate::Error;
use kvmlet_control::{Channel, Connection, Order, Report, Taken};
use kvmlet_spec::{Outcome, Reason, Stats};
use kvmlet_sys::kin::Peer;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

/// How long a supervisor may take beyond what it gives its VM.
const SPARE: Duration = Duration::from_secs(20);

/// An instance that runs. Dropping it ends it: its guest's power is cut, and all that was made for it is cleared away.
#[derive(Debug)]
#[must_use = "dropping it ends the VM"]
pub struct Running {
    /// The supervisor's; none once it has ended, or is left alone.
    process: Option<Pid>,
    pidfd: OwnedFd,
    /// If this program has started it.
    child: Option<Child>,
    link: Link,
    stats: Option<Stats>,
    ended: Option<Outcome>,
}

impl Running {
    pub(super) fn new(child: Child, channel: Channel) -> Result<Self, Error> {
        let process = Pid::from_child(&child);
        Self::of(process, Some(child), Link::Channel(channel, 0))
    }

    /// One that was taken of a pool.
    pub(super) fn taken(taken: Taken) -> (Self, Streams) {
        let running = Self {
            process: i32::try_from(taken.process).ok().and_then(Pid::from_raw),
            pidfd: taken.supervisor,
            child: None,
            link: Link::Channel(taken.channel, 0),
            stats: None,
            ended: None,
        };
        let streams = Streams {
            input: taken.input,
            output: taken.output,
            log: taken.log,
        };
        (running, streams)
    }

    /// The one whose supervisor is at the other end.
    pub(super) fn at(connection: Connection, patience: Duration) -> Result<Self, Error> {
        let listens = Peer::of(&connection).map_err(Error::Lost)?;
        let process = listens.process.ok_or_else(|| Error::Host {
            what: "a handle of the supervisor",
            source: io::Error::other("it is in a PID namespace that this process does not see"),
        })?;
        let mut running = Self::of(process, None, Link::Socket(Box::new(connection)))?;
        // Whoever answers has not ended, so that its number was nobody else's when the handle of its process was made.
        let held = match running.link.ask(Order::Watch) {
            Ok(number) => running.answer(number, Until::after(patience)),
            Err(error) => Err(error),
        };
        if held.is_err() {
            // It is not this program's to be ended.
            running.process = None;
        }
        held.map(|()| running)
    }

    fn of(process: Pid, child: Option<Child>, link: Link) -> Result<Self, Error> {
        let pidfd = pidfd_open(process, PidfdFlags::empty()).map_err(|source| Error::Host {
            what: "a handle of the supervisor",
            source: source.into(),
        })?;
        Ok(Self {
            process: Some(process),
            pidfd,
            child,
            link,
            stats: None,
            ended: None,
        })
    }

    /// The number of the supervisor's process: 0 once it has ended.
    pub fn pid(&self) -> u32 {
        self.process
            .map_or(0, |process| process.as_raw_pid().unsigned_abs())
    }

    /// What the VM tells comes through it: it is readable when there is something, its end among it.
    pub fn told(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    /// Waits until the VM has ended and all that was made for it is cleared away. Can be called again.
    ///
    /// # Errors
    /// [`Error::Gone`] when the supervisor was killed.
    pub fn wait(&mut self) -> Result<Outcome, Error> {
        while self.ended.is_none() {
            self.next(Until::Forever)?;
        }
        self.end()
    }

    /// How the run has ended, if it has.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> Result<Option<Outcome>, Error> {
        while self.ended.is_none() {
            if self.next(Until::Now)?.is_none() {
                return Ok(None);
            }
        }
        self.end().map(Some)
    }

    /// Has the guest end its service and power off; when the time is up its power is cut. Returns when all is cleared away.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn stop(&mut self, timeout: Duration) -> Result<Outcome, Error> {
        if self.ended.is_none() {
            let ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
            let patience_ms = Some(ms);
            // One that has ended by itself says so.
            if let Err(error @ Error::Unheard) = self.link.ask(Order::Stop { patience_ms }) {
                return Err(error);
            }
        }
        self.wait()
    }

    /// Has the VM stand still: when this returns, nothing changes guest memory.
    ///
    /// # Errors
    /// [`Error::Refused`] with what the VM says, [`Error::Over`] when it has ended.
    pub fn pause(&mut self) -> Result<(), Error> {
        self.request(Order::Pause)
    }

    /// Has a VM that stands still go on.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn resume(&mut self) -> Result<(), Error> {
        self.request(Order::Resume)
    }

    /// What the VM has done so far.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn stats(&mut self) -> Result<Stats, Error> {
        self.stats = None;
        self.request(Order::Stats)?;
        self.stats.clone().ok_or(Error::Unheard)
    }

    /// Leaves the VM to itself, if it was started to [outlive](super::Surroundings::outlives) this program, and returns the
    /// number of its supervisor: SIGTERM ends it as [`stop`](Self::stop) does, and by its
    /// [socket](super::Surroundings::control) it is [found again](super::Instance::attach). Any other VM ends as if by SIGTERM.
    pub fn leave(mut self) -> u32 {
        let pid = self.pid();
        // The host's init inherits it with this program's other children.
        self.process = None;
        pid
    }

    fn request(&mut self, order: Order) -> Result<(), Error> {
        if self.ended.is_some() {
            return Err(Error::Over);
        }
        let number = self.link.ask(order)?;
        self.answer(number, Until::Forever)
    }

    /// Waits for the answer to a request.
    fn answer(&mut self, number: u32, until: Until) -> Result<(), Error> {
        loop {
            match self.next(until)? {
                Some(Report::Answer { to, refused }) if to == number => {
                    return refused.map_or(Ok(()), |failure| Err(Error::Refused(failure)));
                }
                Some(Report::Ended(_)) => return Err(Error::Over),
                Some(_) => {}
                None => return Err(Error::Unheard),
            }
        }
    }

    /// What the VM tells next; none if that is not in time.
    fn next(&mut self, until: Until) -> Result<Option<Report>, Error> {
        loop {
            match self.link.next(until)? {
                Some(Report::Stats(json)) => {
                    if let Ok(stats) = serde_json::from_slice(&json) {
                        self.stats = Some(stats);
                    }
                }
                Some(Report::Ended(outcome)) => {
                    let mut ended = (*outcome).clone();
                    ended.stats = self.stats.clone();
                    self.ended = Some(ended);
                    return Ok(Some(Report::Ended(outcome)));
                }
                told => return Ok(told),
            }
        }
    }

    /// Waits for the first word of the supervisor.
    pub(super) fn until_served(&mut self, patience: Duration) -> Result<(), Error> {
        match self.next(Until::after(patience)) {
            Ok(Some(_)) => Ok(()),
            // Whatever it is, it goes with `self`.
            Ok(None) | Err(Error::Gone) => Err(Error::Uninitialised),
            Err(error) => Err(error),
        }
    }

    /// Waits until the guest runs. One that has ended by then has run.
    pub(super) fn until_ready(&mut self) -> Result<(), Error> {
        while self.ended.is_none() {
            if let Some(Report::Ready) = self.next(Until::Forever)? {
                return Ok(());
            }
        }
        match self.end()? {
            Outcome {
                reason: Reason::Failed,
                failure,
                ..
            } => Err(Error::Start(failure.unwrap_or_default())),
            _ => Ok(()),
        }
    }

    /// The supervisor has told the end, and is about to be gone.
    fn end(&mut self) -> Result<Outcome, Error> {
        self.outlast();
        self.ended.clone().ok_or(Error::Gone)
    }

    /// Waits until the supervisor is gone.
    fn outlast(&mut self) {
        if self.process.take().is_some() {
            let _ = wait::one(Slot::readable(self.pidfd.as_fd()), Until::Forever);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}

/// Readable when the supervisor has ended (pidfd_open(2)).
impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.process.is_none() {
            return;
        }
        let patience_ms = Some(0);
        let _ = self.link.ask(Order::Stop { patience_ms });
        let deadline = Instant::now() + SPARE;
        while self.ended.is_none()
            && let Ok(Some(_)) = self.next(Until::Deadline(deadline))
        {}
        if self.ended.is_none() {
            // Its VM goes with it; what it leaves behind, the next one clears away.
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        }
        self.outlast();
    }
}
