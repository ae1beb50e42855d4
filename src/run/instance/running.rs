//! An instance that runs, as the program that has started it sees it.

use crate::Error;
use kvmlet_control::{Channel, LONGEST, Order, Received, Report, Request};
use kvmlet_spec::{Outcome, Reason, Stats};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

/// How long a supervisor may take beyond what it gives its VM.
const SPARE: Duration = Duration::from_secs(20);

/// An instance that runs. Dropping it ends it: its guest's power is cut, and all that was made for it is cleared away.
#[derive(Debug)]
#[must_use = "dropping it ends the VM"]
pub struct Running {
    child: Option<Child>,
    pidfd: OwnedFd,
    channel: Channel,
    /// The number of the last request.
    asked: u32,
    stats: Option<Stats>,
    ended: Option<Outcome>,
}

impl Running {
    pub(super) fn new(child: Child, channel: Channel) -> Result<Self, Error> {
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|source| Error::Host {
            what: "a handle of the supervisor",
            source: source.into(),
        })?;
        Ok(Self {
            child: Some(child),
            pidfd,
            channel,
            asked: 0,
            stats: None,
            ended: None,
        })
    }

    /// The number of the supervisor's process: 0 once it has ended.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// What the VM tells comes through it: it is readable when there is something, its end among it.
    pub fn told(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
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
            let _ = self.ask(Order::Stop { patience_ms });
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
    /// number of its supervisor: SIGTERM ends it as [`stop`](Self::stop) does. Any other VM ends as if by SIGTERM.
    pub fn leave(mut self) -> u32 {
        let pid = self.pid();
        // The host's init inherits it with this program's other children.
        self.child = None;
        pid
    }

    fn request(&mut self, order: Order) -> Result<(), Error> {
        if self.ended.is_some() {
            return Err(Error::Over);
        }
        let number = self.ask(order)?;
        loop {
            match self.next(Until::Forever)? {
                Some(Report::Answer { to, refused }) if to == number => {
                    return refused.map_or(Ok(()), |failure| Err(Error::Refused(failure)));
                }
                Some(Report::Ended(_)) => return Err(Error::Over),
                _ => {}
            }
        }
    }

    fn ask(&mut self, order: Order) -> Result<u32, Error> {
        self.asked = self.asked.wrapping_add(1).max(1);
        let number = self.asked;
        let request = Request { number, order };
        // A supervisor that is gone is noticed by who waits for its answer.
        let _ = self.channel.send(&request.encode());
        Ok(number)
    }

    /// What the VM tells next; none if that is not in time.
    fn next(&mut self, until: Until) -> Result<Option<Report>, Error> {
        loop {
            let come = wait::one(Slot::readable(self.channel.as_fd()), until);
            if !come.map_err(Error::Lost)? {
                return Ok(None);
            }
            let report = match self.channel.receive(LONGEST) {
                Received::Last => return Err(Error::Gone),
                Received::None => continue,
                Received::One(message) => Report::decode(&message),
            };
            match report {
                // Whoever has taken a VM over may send what is none.
                Ok(Report::Stats(json)) => {
                    if let Ok(stats) = serde_json::from_slice(&json) {
                        self.stats = Some(stats);
                    }
                }
                Ok(Report::Ended(outcome)) => {
                    let mut ended = (*outcome).clone();
                    ended.stats = self.stats.clone();
                    self.ended = Some(ended);
                    return Ok(Some(Report::Ended(outcome)));
                }
                Ok(report) => return Ok(Some(report)),
                Err(_) => {}
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
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        self.ended.clone().ok_or(Error::Gone)
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
        let Some(mut child) = self.child.take() else {
            return;
        };
        let patience_ms = Some(0);
        let _ = self.ask(Order::Stop { patience_ms });
        let deadline = Instant::now() + SPARE;
        while self.ended.is_none()
            && let Ok(Some(_)) = self.next(Until::Deadline(deadline))
        {}
        if self.ended.is_none() {
            // Its VM goes with it; what it leaves behind, the next one clears away.
            let _ = child.kill();
        }
        let _ = child.wait();
    }
}
