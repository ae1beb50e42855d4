//! Programs in a guest whose streams somebody takes as they come.

use super::channel::{ClientError, Ended, Event, Output, ProcessSpec, Request, Role};
use super::{Agent, AgentError, failed};
use crate::connection::until;
use kvmlet_contract::ConsoleSize;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// A program in a guest, beside its service. When this is dropped while it runs, it is hung up, as if its terminal's line
/// were cut.
#[derive(Debug)]
pub struct Execution {
    agent: Agent,
}

/// What a program in a guest tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Said {
    /// It has written that. All that is written to a terminal is standard output.
    Output {
        /// To which stream.
        output: Output,
        /// As it is: a guest's, which may steer a terminal.
        bytes: Vec<u8>,
    },
    /// It takes [input](Execution::input), more than it did.
    Ready,
    /// It reads no more input.
    InputClosed,
    /// It has ended, so; this is the last.
    Ended(Ended),
}

impl Execution {
    /// Has it started by an agent that nothing else was asked.
    ///
    /// # Errors
    /// When it was not started, or the guest does not tell within `limit`.
    pub fn start(
        mut agent: Agent,
        spec: &ProcessSpec,
        limit: Duration,
    ) -> Result<Self, AgentError> {
        agent.client().start(spec, Role::Exec)?;
        agent.started(limit)?;
        Ok(Self { agent })
    }

    /// What it tells next; none if that is not before the deadline. Without one it may take for ever. What is not taken the program
    /// waits to write, as with a pipe.
    ///
    /// # Errors
    /// When its end cannot be told any more: the VM has ended.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Said>, AgentError> {
        loop {
            if let Some(said) = self.said()? {
                return Ok(Some(said));
            }
            if !until(self.agent.as_fd(), self.agent.interest(), deadline)? {
                return Ok(None);
            }
            self.agent.turn()?;
        }
    }

    /// What has come.
    fn said(&mut self) -> Result<Option<Said>, AgentError> {
        let client = self.agent.client();
        while let Some(event) = client.next_event()? {
            match event {
                Event::Output { output, bytes } => {
                    let bytes = bytes.to_vec();
                    client.taken(output, bytes.len());
                    return Ok(Some(Said::Output { output, bytes }));
                }
                Event::InputCredit { .. } => return Ok(Some(Said::Ready)),
                Event::InputClosed => return Ok(Some(Said::InputClosed)),
                Event::Exited { ended } => return Ok(Some(Said::Ended(ended))),
                Event::Failed { fault, message } => return Err(failed(fault, message)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Gives it input, as much as it is [ready](Said::Ready) to take; returns how much that is. One that was started without input
    /// takes none.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn input(&mut self, bytes: &[u8]) -> Result<usize, AgentError> {
        let taken = self.agent.client().input(bytes);
        self.sent(Ok(()))?;
        Ok(taken)
    }

    /// There is no more input. A terminal has no such end: whoever is there types one (`\x04`).
    ///
    /// # Errors
    /// As [`input`](Self::input).
    pub fn end_input(&mut self) -> Result<(), AgentError> {
        let asked = self.agent.client().request(&Request::EndInput);
        self.sent(asked)
    }

    /// Its terminal has another size.
    ///
    /// # Errors
    /// As [`input`](Self::input).
    pub fn resize(&mut self, size: ConsoleSize) -> Result<(), AgentError> {
        let asked = self.agent.client().request(&Request::Resize { size });
        self.sent(asked)
    }

    /// Sends it a signal by its number, and all of its process group.
    ///
    /// # Errors
    /// As [`input`](Self::input).
    pub fn signal(&mut self, signal: u8) -> Result<(), AgentError> {
        let group = true;
        let asked = self
            .agent
            .client()
            .request(&Request::Signal { signal, group });
        self.sent(asked)
    }

    /// Sends what there is to be sent, as far as that goes without waiting; the rest goes while the program is heard.
    fn sent(&mut self, asked: Result<(), ClientError>) -> Result<(), AgentError> {
        asked?;
        match self.agent.turn() {
            // How it has ended may be here already.
            Err(AgentError::Gone) => Ok(()),
            turned => turned,
        }
    }
}

/// Readable when it may have said something.
impl AsFd for Execution {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.agent.as_fd()
    }
}

#[cfg(test)]
#[path = "execution_tests.rs"]
mod tests;
