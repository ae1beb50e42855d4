//! A VM's control socket, as a program that uses it sees it.

use crate::address;
use crate::passing::receive_with;
use crate::{Frame, LONGEST, Malformed, Order, Report, Request, framed};
use kvmlet_spec::{Failure, Outcome};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Why a VM has not done what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// It says why.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// It has ended.
    #[error("the VM has ended")]
    Over(Box<Outcome>),
    /// Its supervisor has closed the connection: it has ended, serves as many as it can, or does not know this user.
    #[error("the VM's supervisor has closed the connection")]
    Closed,
    /// It has not answered in time.
    #[error("the VM's supervisor has not answered within {} s", .0.as_secs())]
    Late(Duration),
    /// What it says is no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The socket failed.
    #[error("the control socket cannot be used")]
    Io(#[from] io::Error),
}

/// What a supervisor says, with how long, of a VM that has not answered it.
pub const UNANSWERED: &str = "the VM has not answered within";

impl ConnectionError {
    /// Was an answer waited for in vain: the supervisor's, or by that the VM's own?
    pub fn is_late(&self) -> bool {
        match self {
            Self::Refused(failure) => failure.message.starts_with(UNANSWERED),
            Self::Late(_) => true,
            _ => false,
        }
    }
}

/// A connection to the supervisor of a VM.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    frame: Frame,
    /// The number of the last request.
    asked: u32,
    /// What has come with what was told.
    descriptor: Option<OwnedFd>,
}

/// A VM that is being saved.
#[derive(Debug)]
pub struct Saving {
    /// What is told of it.
    pub pieces: OwnedFd,
    /// The most that the file can have.
    pub most_bytes: u64,
    /// By which the VM says that all is told.
    pub number: u32,
}

impl Connection {
    /// To whoever listens at a path.
    ///
    /// # Errors
    /// What the kernel says: nobody listens, or does not get on with accepting within some seconds.
    pub fn to(path: &Path) -> io::Result<Self> {
        let socket = address::connected(path)?;
        ioctl_fionbio(&socket, true)?;
        Ok(socket.into())
    }

    /// Asks for something, and returns what is told until that is answered.
    ///
    /// # Errors
    /// Why it is not done, as far as that is known.
    pub fn ask(
        &mut self,
        order: Order,
        patience: Duration,
    ) -> Result<Vec<Report>, ConnectionError> {
        let late = || ConnectionError::Late(patience);
        let deadline = Instant::now() + patience;
        let number = self.request(order, patience)?;
        let mut told = Vec::new();
        loop {
            match self.next(Some(deadline))?.ok_or_else(late)? {
                Report::Answer { to, refused } if to == number => {
                    return refused
                        .map_or(Ok(told), |failure| Err(ConnectionError::Refused(failure)));
                }
                Report::Ended(outcome) => return Err(ConnectionError::Over(outcome)),
                // A VM that tells without end is not listened to for ever, and not kept.
                report if told.len() < MOST_TOLD => told.push(report),
                _ => {}
            }
        }
    }

    /// Has the VM be saved: it sleeps for a moment once all but the last pieces are read, or, where its host cannot tell what it
    /// writes meanwhile, until all are, or nobody is there to read them.
    ///
    /// # Errors
    /// Why it is not, as far as that is known.
    pub fn save(&mut self, patience: Duration) -> Result<Saving, ConnectionError> {
        self.be_told(Order::Save, patience)
    }

    /// The same, of what has changed of its memory since a snapshot, by the id of that.
    ///
    /// # Errors
    /// As [`save`](Self::save), and when the VM does not know what has changed since.
    pub fn save_since(
        &mut self,
        base: [u8; 16],
        patience: Duration,
    ) -> Result<Saving, ConnectionError> {
        self.be_told(Order::SaveSince { base }, patience)
    }

    /// The same as [`save`](Self::save), but the VM sleeps from the end of that on, until what is told is closed here, or it is [asked](Order::Suspended)
    /// to sleep for good.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn suspend(&mut self, patience: Duration) -> Result<Saving, ConnectionError> {
        self.be_told(Order::Suspend, patience)
    }

    fn be_told(&mut self, order: Order, patience: Duration) -> Result<Saving, ConnectionError> {
        let deadline = Instant::now() + patience;
        let number = self.request(order, patience)?;
        loop {
            let told = self.next(Some(deadline))?;
            match told.ok_or(ConnectionError::Late(patience))? {
                Report::Saving { most_bytes } => {
                    let pieces = self.descriptor.take();
                    return Ok(Saving {
                        pieces: pieces.ok_or(ConnectionError::Malformed(Malformed::Short))?,
                        most_bytes,
                        number,
                    });
                }
                Report::Answer { to, refused } if to == number => {
                    return Err(ConnectionError::Refused(refused.unwrap_or_default()));
                }
                Report::Ended(outcome) => return Err(ConnectionError::Over(outcome)),
                _ => {}
            }
        }
    }

    /// Waits until a VM that was saved says that all was told; returns how long it stood still, if it says that.
    ///
    /// # Errors
    /// Why not all was told.
    pub fn saved(
        &mut self,
        number: u32,
        patience: Duration,
    ) -> Result<Option<Duration>, ConnectionError> {
        let deadline = Instant::now() + patience;
        let mut stood_still = None;
        loop {
            let told = self.next(Some(deadline))?;
            match told.ok_or(ConnectionError::Late(patience))? {
                Report::Answer { to, refused } if to == number => {
                    return refused
                        .map_or(Ok(stood_still), |why| Err(ConnectionError::Refused(why)));
                }
                Report::StoodStill { microseconds } => {
                    stood_still = Some(Duration::from_micros(microseconds));
                }
                Report::Ended(outcome) => return Err(ConnectionError::Over(outcome)),
                _ => {}
            }
        }
    }

    /// The VM's statistics as OpenMetrics text, which is the last that is said here.
    ///
    /// # Errors
    /// Why there are none, as far as that is known.
    pub fn scrape(self, patience: Duration) -> Result<String, ConnectionError> {
        let deadline = Instant::now() + patience;
        let late = || ConnectionError::Late(patience);
        if !self.send(b"GET /metrics HTTP/1.1\r\nHost: vm\r\n\r\n", deadline)? {
            return Err(late());
        }
        let mut bytes = Vec::new();
        let mut piece = [0; READ_BYTES];
        loop {
            match recv(&self.socket, &mut piece, RecvFlags::DONTWAIT) {
                Ok((0, _)) => break,
                Ok((count, _)) if bytes.len() + count <= MOST_METRICS => {
                    bytes.extend_from_slice(&piece[..count]);
                }
                Ok(_) => return Err(Malformed::Long.into()),
                Err(Errno::AGAIN) if self.wait(PollFlags::IN, Some(deadline))? => {}
                Err(Errno::AGAIN) => return Err(late()),
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(ConnectionError::Closed),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        let text = String::from_utf8(bytes).map_err(|_| Malformed::Text)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or(Malformed::Short)?;
        match head.split(' ').nth(1) {
            Some("200") => Ok(body.into()),
            _ => {
                let mut failure = Failure::default();
                failure.message = body.trim_end().into();
                Err(ConnectionError::Refused(failure))
            }
        }
    }

    /// Asks for something, and returns the number that its answer will have.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn request(&mut self, order: Order, patience: Duration) -> Result<u32, ConnectionError> {
        self.asked = self.asked.wrapping_add(1).max(1);
        let number = self.asked;
        let message = framed(&Request { number, order }.encode());
        match self.send(&message, Instant::now() + patience)? {
            true => Ok(number),
            false => Err(ConnectionError::Late(patience)),
        }
    }

    /// What is told next; none if that is not before the deadline. Without one it may take for ever.
    ///
    /// # Errors
    /// When nothing more can come.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Report>, ConnectionError> {
        loop {
            match self.receive()? {
                Some(message) => match Report::decode(&message) {
                    Ok(report) => return Ok(Some(report)),
                    // A later kvmlet may tell more.
                    Err(Malformed::Kind(_)) => {}
                    Err(error) => return Err(error.into()),
                },
                None if self.wait(PollFlags::IN, deadline)? => {}
                None => return Ok(None),
            }
        }
    }

    /// What has come, if it is a whole message.
    fn receive(&mut self) -> Result<Option<Vec<u8>>, ConnectionError> {
        let mut is_reset = false;
        loop {
            let mut bytes = vec![0; self.frame.lacks().min(READ_BYTES)];
            match receive_with(&self.socket, &mut bytes) {
                Ok((count @ 1.., descriptor)) => {
                    if descriptor.is_some() {
                        self.descriptor = descriptor;
                    }
                    if let Some(message) = self.frame.add(&bytes[..count])? {
                        return Ok(Some(message));
                    }
                }
                // It was closed before it had read all: that is told once, and before what it had sent.
                Err(Errno::CONNRESET) if !is_reset => is_reset = true,
                Ok(_) | Err(Errno::CONNRESET | Errno::PIPE) => return Err(ConnectionError::Closed),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }

    /// False if it is not taken in time.
    fn send(&self, mut bytes: &[u8], deadline: Instant) -> Result<bool, ConnectionError> {
        while !bytes.is_empty() {
            match send(
                &self.socket,
                bytes,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !self.wait(PollFlags::OUT, Some(deadline))? {
                        return Ok(false);
                    }
                }
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(ConnectionError::Closed),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(true)
    }

    fn wait(&self, what: PollFlags, deadline: Option<Instant>) -> io::Result<bool> {
        until(self.socket.as_fd(), what, deadline)
    }
}

/// Waits until a socket is that; false where it is not by then.
#[allow(clippy::disallowed_methods)] // what clients link knows no kvmlet-sys
pub(crate) fn until(
    socket: BorrowedFd<'_>,
    what: PollFlags,
    deadline: Option<Instant>,
) -> io::Result<bool> {
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut fds = [PollFd::from_borrowed_fd(socket, what)];
        match poll(&mut fds, left.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Read at once.
const READ_BYTES: usize = 16 << 10;
/// More than the statistics of any VM take as text.
const MOST_METRICS: usize = 1 << 20;
/// More than is told between a question and its answer.
const MOST_TOLD: usize = 64;

/// A socket that is connected.
impl From<OwnedFd> for Connection {
    fn from(socket: OwnedFd) -> Self {
        Self {
            socket,
            frame: Frame::new(LONGEST),
            asked: 0,
            descriptor: None,
        }
    }
}

/// Readable when something is told.
impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
