//! A process in a guest, with its streams on those of this one: its output is printed, its input read here, and signals are
//! passed on.

mod keys;

use super::exit_code::ExitCode;
use crate::Failed;
use keys::Keys;
use kvmlet_control::agent::channel::{Ended, Event, Fault, Output, Request};
use kvmlet_control::agent::{Agent, AgentError, readable};
use kvmlet_manager::supervision::slot_of;
use kvmlet_run::RawTerminal;
use kvmlet_sys::output::write_whole;
use kvmlet_sys::signals::{ENDING, Signals};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::io::{Errno, read};
use rustix::stdio::{stderr, stdin, stdout};
use std::io;
use std::os::fd::AsFd;

/// What is asked of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// Standard input goes to the process.
    pub input: bool,
    /// The process has a terminal, which is this one's.
    pub terminal: bool,
    /// Signals go to all of the process's group.
    pub group: bool,
}

/// How it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The process has ended.
    Ended(Ended),
    /// It was left to itself, by its keys.
    Detached,
}

/// The exit code of a command that there is not, as shells have it.
const NOT_THERE: u8 = 127;

/// Why there is no process.
#[derive(Debug)]
pub(super) enum SessionError {
    /// It was not started: why, and the exit code that says so.
    Start(String, u8),
    /// The guest, or the way there, has failed.
    Agent(AgentError),
    /// This process has.
    Io(io::Error),
}

impl From<io::Error> for SessionError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl SessionError {
    /// Of a process in whose streams nobody is interested.
    pub fn from_start(error: AgentError) -> Self {
        match error {
            AgentError::Failed {
                fault: Fault::Start { exit_code },
                message,
            } => Self::Start(format!("the guest cannot {message}"), exit_code),
            error => Self::Agent(error),
        }
    }

    /// Tells it, and returns the exit code.
    pub fn tell(self, called: &str) -> u8 {
        let not_done = ExitCode::NotDone.number();
        let (failed, code) = match self {
            // What the guest could not make ready for it: nothing was executed.
            Self::Start(why, kvmlet_command::FAILED) => (Failed::new(why), not_done),
            Self::Start(why, code @ NOT_THERE) => {
                let help = "what the image has can be executed; it need not have a shell";
                (Failed::new(why).help(help), code)
            }
            Self::Start(why, code) => (Failed::new(why), code),
            // The machine was its process's end, as a signal is that nobody can take.
            Self::Agent(AgentError::Gone) => (
                Failed::new(format!(
                    "instance `{called}` has ended before the process has"
                )),
                ExitCode::Signal(libc::SIGKILL).number(),
            ),
            Self::Agent(error) => (Failed::new(error), not_done),
            Self::Io(error) => (Failed::new(error), not_done),
        };
        failed.print();
        code
    }
}

/// The two sides of it.
pub(super) struct Session {
    agent: Agent,
    wanted: Wanted,
    keys: Keys,
    /// What was read and not passed on yet.
    typed: Vec<u8>,
    input_open: bool,
    signals: Signals,
    terminal: Option<RawTerminal>,
}

impl Session {
    /// Of a process that this connection was just asked to start, or to attach to. From here on signals are the process's.
    pub fn new(agent: Agent, wanted: Wanted) -> Result<Self, SessionError> {
        let mut taken = ENDING.to_vec();
        taken.push(libc::SIGWINCH);
        Ok(Self {
            agent,
            wanted,
            keys: Keys::default(),
            typed: Vec::new(),
            input_open: wanted.input,
            signals: Signals::take(&taken)?,
            terminal: None,
        })
    }

    /// Passes everything on until the process has ended, or was left.
    pub fn run(mut self) -> Result<Left, SessionError> {
        if self.wanted.terminal && self.wanted.input {
            self.terminal = RawTerminal::enter();
        }
        loop {
            let [can_talk, signalled, can_read] = self.wait()?;
            if signalled {
                self.pass_signals_on()?;
            }
            if can_read && self.read()? {
                // What was typed before is still the process's.
                self.feed()?;
                self.agent.turn().map_err(SessionError::Agent)?;
                return Ok(Left::Detached);
            }
            self.feed()?;
            if can_talk || !self.agent.client().outgoing().is_empty() {
                let turned = self.agent.turn();
                // What came before the end counts.
                if let Some(ended) = self.hear()? {
                    return Ok(Left::Ended(ended));
                }
                turned.map_err(SessionError::Agent)?;
            }
        }
    }

    fn wait(&mut self) -> Result<[bool; 3], SessionError> {
        let wants_input =
            self.input_open && self.typed.is_empty() && self.agent.client().input_room() > 0;
        if self.agent.client().input_closed() {
            self.input_open = false;
        }
        let input = match wants_input {
            true => Slot::readable(stdin()),
            false => Slot::NOTHING,
        };
        let slots = [
            slot_of(&self.agent),
            Slot::readable(self.signals.as_fd()),
            input,
        ];
        Ok(wait::any(slots, Until::Forever)?)
    }

    /// Prints what came, and returns how the process has ended.
    fn hear(&mut self) -> Result<Option<Ended>, SessionError> {
        let client = self.agent.client();
        loop {
            let event = client
                .next_event()
                .map_err(|error| SessionError::Agent(error.into()))?;
            match event {
                None => return Ok(None),
                Some(Event::Output { output, bytes }) => {
                    let printed = match output {
                        Output::Stdout => write_whole(stdout(), bytes),
                        Output::Stderr => write_whole(stderr(), bytes),
                    };
                    match printed {
                        // Nobody reads any more. The process goes on, as one that is piped into nothing.
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                        printed => printed?,
                    }
                    let count = bytes.len();
                    client.taken(output, count);
                }
                Some(Event::Exited { ended }) => return Ok(Some(ended)),
                Some(Event::Failed { fault, message }) => {
                    let message = format!("the guest cannot {}", readable(message));
                    return Err(match fault {
                        Fault::Start { exit_code } => SessionError::Start(message, exit_code),
                        _ => SessionError::Start(message, ExitCode::NotDone.number()),
                    });
                }
                Some(Event::Started { .. }) if self.wanted.terminal => {
                    if let Some(size) = kvmlet_run::terminal_size() {
                        let asked = client.request(&Request::Resize { size });
                        asked.map_err(|error| SessionError::Agent(error.into()))?;
                    }
                }
                Some(_) => {}
            }
        }
    }

    fn pass_signals_on(&mut self) -> Result<(), SessionError> {
        while let Some(number) = self.signals.next()? {
            let request = match number {
                libc::SIGWINCH => {
                    match kvmlet_run::terminal_size().filter(|_| self.wanted.terminal) {
                        Some(size) => Request::Resize { size },
                        None => continue,
                    }
                }
                number => Request::Signal {
                    signal: number as u8,
                    group: self.wanted.group,
                },
            };
            let asked = self.agent.client().request(&request);
            asked.map_err(|error| SessionError::Agent(error.into()))?;
        }
        Ok(())
    }

    /// Reads input; true if it says to leave.
    fn read(&mut self) -> Result<bool, SessionError> {
        let mut bytes = [0; 4096];
        match read(stdin(), &mut bytes) {
            Ok(0) => {
                self.input_open = false;
                let asked = self.agent.client().request(&Request::EndInput);
                asked.map_err(|error| SessionError::Agent(error.into()))?;
                Ok(false)
            }
            Ok(count) if self.terminal.is_some() => {
                let (typed, leave) = self.keys.look(&bytes[..count]);
                self.typed = typed;
                Ok(leave)
            }
            Ok(count) => {
                self.typed = bytes[..count].to_vec();
                Ok(false)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(false),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    fn feed(&mut self) -> Result<(), SessionError> {
        let count = self.agent.client().input(&self.typed);
        self.typed.drain(..count);
        Ok(())
    }
}
