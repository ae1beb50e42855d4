//! The agent in a guest, as a program on the host speaks with it: over a socket that leads to its port.
//!
//! What is said, and all that is held while it is said, is [`kvmlet_contract::channel`]'s; here are the socket below it and
//! the waiting. A guest may say what it likes: memory has its bounds, text that is handed out may be printed, and nothing waits
//! longer than it was told to.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

pub use kvmlet_contract::archive;
pub use kvmlet_contract::channel;
use kvmlet_contract::channel::{
    Client, ClientError, Ended, Event, Fault, Output, ProcessSpec, Request, Role,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Why a guest's agent is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// It broke the rules, or it was asked for what cannot be.
    #[error("{0}")]
    Client(ClientError),
    /// The connection has ended: the VM has, or the agent has taken it for another one.
    #[error("the guest ended the connection to its agent")]
    Gone,
    /// It did not do what it was asked for.
    #[error("the guest cannot {message}")]
    Failed {
        /// What that is about.
        fault: Fault,
        /// The rest of a sentence that starts with "cannot".
        message: String,
    },
    /// What it answered cannot be an answer.
    #[error("the guest's agent sent {0}")]
    Nonsense(&'static str),
    /// It took too long.
    #[error("the guest's agent did not answer in {} s", .0.as_secs_f32())]
    Late(Duration),
    /// The socket, or what its output is written to, failed.
    #[error("the connection to the guest's agent: {0}")]
    Io(#[from] io::Error),
}

impl From<ClientError> for AgentError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

const SIGKILL: u8 = 9;
/// How long a guest may take to kill a process that has taken too long.
const KILLING: Duration = Duration::from_secs(2);

/// A connection to the agent of a guest.
#[derive(Debug)]
pub struct Agent {
    socket: OwnedFd,
    client: Client,
}

/// The streams of a process in a guest.
pub struct Streams<'a> {
    /// Read to its end for the process; there is no input without one. Reading from it must not block when it is ready.
    pub input: Option<BorrowedFd<'a>>,
    /// Takes standard output.
    pub stdout: &'a mut dyn Write,
    /// Takes standard error.
    pub stderr: &'a mut dyn Write,
}

impl Agent {
    /// Speaks with the agent that a stream socket leads to.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            client: Client::new(),
        }
    }

    /// What is put in here is sent by the next [`Self::turn`].
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// When [`Self::turn`] has something to do.
    pub fn interest(&self) -> PollFlags {
        match self.client.outgoing() {
            [] => PollFlags::IN,
            _ => PollFlags::IN | PollFlags::OUT,
        }
    }

    /// Sends and receives what can be without waiting. What came is then handed out by the [client](Self::client).
    ///
    /// # Errors
    ///
    /// [`AgentError::Gone`] when the connection has ended and all that came was handed out.
    pub fn turn(&mut self) -> Result<(), AgentError> {
        while !self.client.outgoing().is_empty() {
            match send(
                &self.socket,
                self.client.outgoing(),
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(count) => self.client.sent(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // What it has said before is still to be read.
                Err(Errno::PIPE | Errno::CONNRESET) => self.client.sent(usize::MAX),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        let mut bytes = [0; 16 << 10];
        let most = self.client.room().min(bytes.len());
        if most == 0 {
            return Ok(());
        }
        match recv(&self.socket, &mut bytes[..most], RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => Err(AgentError::Gone),
            Ok((count, _)) => {
                self.client.received(&bytes[..count]);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// Has a request about the machine fulfilled: [`Request::SetClock`], [`Request::AddEntropy`], [`Request::Network`].
    ///
    /// # Errors
    ///
    /// When the guest cannot, or does not answer within `limit`.
    pub fn change(&mut self, request: &Request<'_>, limit: Duration) -> Result<(), AgentError> {
        self.client.request(request)?;
        self.answer(limit, |event| matches!(event, Event::Done).then_some(()))
    }

    /// Waits until the process that was [asked for](Client::start) runs, where nobody wants its streams.
    ///
    /// # Errors
    /// When it was not started, or the guest does not tell within `limit`.
    pub fn started(&mut self, limit: Duration) -> Result<(), AgentError> {
        let runs = |event: &Event<'_>| matches!(event, Event::Started { .. }).then_some(());
        self.answer(limit, runs)
    }

    /// The guest's time of day, in nanoseconds since 1970-01-01 00:00 UTC.
    ///
    /// # Errors
    ///
    /// When it does not answer within `limit`.
    pub fn clock(&mut self, limit: Duration) -> Result<u64, AgentError> {
        self.client.request(&Request::ReadClock)?;
        self.answer(limit, |event| match event {
            Event::Clock { realtime_ns, .. } => Some(*realtime_ns),
            _ => None,
        })
    }

    fn answer<T>(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&Event<'_>) -> Option<T>,
    ) -> Result<T, AgentError> {
        let deadline = Instant::now() + limit;
        loop {
            while let Some(event) = self.client.next_event()? {
                if let Event::Failed { fault, message } = event {
                    return Err(failed(fault, message));
                }
                if let Some(answer) = wanted(&event) {
                    return Ok(answer);
                }
            }
            self.wait(Some((deadline, limit)), None)?;
            self.turn()?;
        }
    }

    /// Executes a process in the guest and passes its streams on until it has ended.
    ///
    /// # Errors
    ///
    /// When it does not start, the connection ends before it does, or it takes longer than `limit`. It is then killed with all
    /// of its process group.
    pub fn execute(
        &mut self,
        spec: &ProcessSpec,
        streams: &mut Streams<'_>,
        limit: Option<Duration>,
    ) -> Result<Ended, AgentError> {
        self.run(spec, Role::Exec, streams, limit)
    }

    fn run(
        &mut self,
        spec: &ProcessSpec,
        role: Role,
        streams: &mut Streams<'_>,
        limit: Option<Duration>,
    ) -> Result<Ended, AgentError> {
        self.client.start(spec, role)?;
        let limit = limit.map(|limit| (Instant::now() + limit, limit));
        loop {
            if let Some(ended) = self.pass_on(streams)? {
                return Ok(ended);
            }
            self.feed(streams)?;
            let input = streams.input.filter(|_| self.client.input_room() > 0);
            match self.wait(limit, input) {
                Err(late @ AgentError::Late(_)) => {
                    self.kill();
                    return Err(late);
                }
                other => other?,
            }
            self.turn()?;
        }
    }

    /// Kills the process of this connection, and waits until it has ended, but not for long: the agent may not listen.
    fn kill(&mut self) {
        let (signal, group) = (SIGKILL, true);
        let asked = self.client.request(&Request::Signal { signal, group });
        let deadline = Instant::now() + KILLING;
        while asked.is_ok() {
            match self.client.next_event() {
                // What it has written is nobody's any more.
                Ok(Some(Event::Output { output, bytes })) => {
                    let count = bytes.len();
                    self.client.taken(output, count);
                }
                Ok(Some(Event::Exited { .. } | Event::Failed { .. })) | Err(_) => return,
                Ok(Some(_)) => {}
                Ok(None) => {
                    let waited = self
                        .turn()
                        .and_then(|()| self.wait(Some((deadline, KILLING)), None));
                    if waited.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Hands out what came, and returns how the process has ended.
    fn pass_on(&mut self, streams: &mut Streams<'_>) -> Result<Option<Ended>, AgentError> {
        while let Some(event) = self.client.next_event()? {
            match event {
                Event::Output { output, bytes } => {
                    let count = bytes.len();
                    match output {
                        Output::Stdout => streams.stdout.write_all(bytes)?,
                        Output::Stderr => streams.stderr.write_all(bytes)?,
                    }
                    self.client.taken(output, count);
                }
                Event::Exited { ended } => {
                    streams.stdout.flush()?;
                    streams.stderr.flush()?;
                    return Ok(Some(ended));
                }
                Event::Failed { fault, message } => return Err(failed(fault, message)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Reads input, as much as the process takes, if there is some.
    #[allow(clippy::disallowed_methods)] // what clients link knows no kvmlet-sys
    fn feed(&mut self, streams: &mut Streams<'_>) -> Result<(), AgentError> {
        let Some(input) = streams.input.filter(|_| self.client.input_room() > 0) else {
            return Ok(());
        };
        let now = Timespec::default();
        let mut ready = [PollFd::from_borrowed_fd(input, PollFlags::IN)];
        if poll(&mut ready, Some(&now)).map_err(io::Error::from)? == 0 {
            return Ok(());
        }
        let mut bytes = [0; 4096];
        let most = self.client.input_room().min(bytes.len());
        match rustix::io::read(input, &mut bytes[..most]) {
            Ok(0) => {
                streams.input = None;
                self.client.request(&Request::EndInput)?;
            }
            Ok(count) => {
                self.client.input(&bytes[..count]);
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        Ok(())
    }

    /// Waits until there is something to do for [`Self::turn`], or input.
    #[allow(clippy::disallowed_methods)] // what clients link knows no kvmlet-sys
    fn wait(
        &self,
        limit: Option<(Instant, Duration)>,
        input: Option<BorrowedFd<'_>>,
    ) -> Result<(), AgentError> {
        let mut fds = vec![PollFd::from_borrowed_fd(
            self.socket.as_fd(),
            self.interest(),
        )];
        fds.extend(input.map(|input| PollFd::from_borrowed_fd(input, PollFlags::IN)));
        let timeout = match limit {
            None => None,
            Some((deadline, limit)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(AgentError::Late(limit));
                }
                Some(Timespec {
                    tv_sec: left.as_secs() as i64,
                    tv_nsec: left.subsec_nanos().into(),
                })
            }
        };
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

impl AsFd for Agent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn failed(fault: Fault, message: &[u8]) -> AgentError {
    let message = readable(message);
    AgentError::Failed { fault, message }
}

/// A guest's text as it may be printed: what steers a terminal is replaced.
pub fn readable(text: &[u8]) -> String {
    let replaced = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    String::from_utf8_lossy(text)
        .chars()
        .map(replaced)
        .collect()
}

mod copy;
mod dialling;
mod execution;
mod processes;
pub mod records;
#[cfg(test)]
mod tests;

pub use copy::{CopyError, Owners};
pub use dialling::Dialling;
pub use execution::{Execution, Said};
pub use processes::Process;
