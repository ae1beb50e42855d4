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
use kvmlet_sys::signals::{ENDING, Signals};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::io::{Errno, read, write};
use rustix::stdio::{stderr, stdin, stdout};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

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

impl Wanted {
    /// Refuses to pass on as a terminal's keys what comes from something else, as docker does: its end would never be told.
    pub fn check(&self) -> Result<(), Failed> {
        match self.input && self.terminal && !io::stdin().is_terminal() {
            true => Err(Failed::new("standard input is not a terminal")
                .help("leave out -t, and it goes to the process as it is")),
            false => Ok(()),
        }
    }
}

/// How it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The process has ended.
    Ended(Ended),
    /// It was left to itself, by its keys.
    Detached,
    /// It goes on, but whoever sends this signal does not want to wait for it.
    Signal(libc::c_int),
}

/// As docker has it: who asks for the third time wants this process to end.
pub(super) const MOST_SIGNALS: usize = 3;
/// How long a signal may take to be taken by the other side.
const UNTAKEN: Duration = Duration::from_secs(5);
/// A pipe that can be written to takes this much without waiting (PIPE_BUF in pipe(7)).
const PRINTED_AT_ONCE: usize = 4096;

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
    /// How many that ask for the end were passed on, and the last one, with when it is to be taken.
    asked: usize,
    asks: Option<(libc::c_int, Instant)>,
    /// Its output, for which there is no room yet.
    unprinted: Option<(Output, Vec<u8>)>,
    /// Why no more will come.
    over: Option<AgentError>,
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
            asked: 0,
            asks: None,
            unprinted: None,
            over: None,
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
            if let Some(signal) = self.is_in_vain() {
                return Ok(Left::Signal(signal));
            }
            if can_read && self.read()? {
                // What was typed before is still the process's.
                self.feed()?;
                self.agent.turn().map_err(SessionError::Agent)?;
                return Ok(Left::Detached);
            }
            self.feed()?;
            if self.over.is_none() && (can_talk || !self.agent.client().outgoing().is_empty()) {
                self.over = self.agent.turn().err();
            }
            // What came before the end counts.
            if let Some(ended) = self.hear()? {
                return Ok(Left::Ended(ended));
            }
            if self.unprinted.is_none()
                && let Some(error) = self.over.take()
            {
                return Err(SessionError::Agent(error));
            }
        }
    }

    /// The signal by which somebody wants the end, where there is no use in waiting for the process.
    fn is_in_vain(&mut self) -> Option<libc::c_int> {
        let (signal, due) = self.asks?;
        let is_taken = self.agent.client().outgoing().is_empty();
        (self.asked >= MOST_SIGNALS || (!is_taken && Instant::now() >= due)).then_some(signal)
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
        let speaks = !self.agent.client().outgoing().is_empty();
        let agent = match (&self.unprinted, &self.over) {
            (_, Some(_)) => Slot::NOTHING,
            // It is not listened to before that is printed.
            (Some(_), None) if speaks => Slot::writable(self.agent.as_fd()),
            (Some(_), None) => Slot::NOTHING,
            (None, None) => slot_of(&self.agent),
        };
        let room = match &self.unprinted {
            Some((output, _)) => Slot::writable(stream(*output)),
            None => Slot::NOTHING,
        };
        let slots = [agent, Slot::readable(self.signals.as_fd()), input, room];
        let due = self.asks.filter(|_| speaks).map(|(_, due)| due);
        let [can_talk, signalled, can_read, _] = wait::any(slots, Until::from(due))?;
        Ok([can_talk, signalled, can_read])
    }

    /// Prints what has not been, as far as there is room: whoever does not read keeps nobody from ending this. True if nothing
    /// is left.
    fn print(&mut self) -> Result<bool, SessionError> {
        while let Some((output, bytes)) = &mut self.unprinted {
            let (output, file) = (*output, stream(*output));
            if !wait::one(Slot::writable(file), Until::Now)? {
                return Ok(false);
            }
            let count = match write(file, &bytes[..bytes.len().min(PRINTED_AT_ONCE)]) {
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(false),
                // Nobody reads any more. The process goes on, as one that is piped into nothing.
                Err(Errno::PIPE) => bytes.len(),
                Err(error) => return Err(io::Error::from(error).into()),
            };
            bytes.drain(..count);
            if bytes.is_empty() {
                self.unprinted = None;
            }
            self.agent.client().taken(output, count);
        }
        Ok(true)
    }

    /// Prints what came, and returns how the process has ended.
    fn hear(&mut self) -> Result<Option<Ended>, SessionError> {
        loop {
            if !self.print()? {
                return Ok(None);
            }
            let client = self.agent.client();
            let event = client
                .next_event()
                .map_err(|error| SessionError::Agent(error.into()))?;
            match event {
                None => return Ok(None),
                Some(Event::Output { output, bytes }) => {
                    self.unprinted = Some((output, bytes.to_vec()));
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
            if number != libc::SIGWINCH {
                self.asked += 1;
                self.asks = Some((number, Instant::now() + UNTAKEN));
            }
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

fn stream(output: Output) -> BorrowedFd<'static> {
    match output {
        Output::Stdout => stdout(),
        Output::Stderr => stderr(),
    }
}
