//! Starting the supervisor of an instance: a program of kvmlet's (`keep`), or a process forked from this one that does the
//! same. It says how far it is on its standard output.

use crate::supervision::attach;
use crate::{Giving, Instance, InstanceId, Turn};
use kvmlet_control::agent::Agent;
use kvmlet_sys::process::{self, Child, Ended};
use kvmlet_sys::{descriptors, standard_error};
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

/// What a supervisor says when whoever likes can be attached to its service.
pub const LISTENS: &str = "listens\n";
/// What it says when its service runs.
pub const READY: &str = "ready\n";
/// No message is longer.
const MESSAGE_BYTES: u64 = 16 << 10;
/// The code of a process that was killed, as nobody else can tell it.
const KILLED: u8 = 137;

/// What supervises an instance, whose id it is given.
pub enum Keeper<'a> {
    /// A program, with its verb.
    Program(Command),
    /// What this process does in one that is forked from it; returns the exit code. It spares a start the execution of a program.
    Here(Box<dyn FnOnce(&InstanceId) -> u8 + 'a>),
}

impl fmt::Debug for Keeper<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(command) => f.debug_tuple("Program").field(command).finish(),
            Self::Here(_) => f.debug_tuple("Here").finish_non_exhaustive(),
        }
    }
}

impl Keeper<'_> {
    /// Begins it, with these streams.
    fn begin(self, id: &InstanceId, input: OwnedFd, output: OwnedFd) -> io::Result<Child> {
        let keep = match self {
            Self::Program(mut command) => {
                // It lives on, and would hold what whoever called has opened: a lock, or the end of a pipe.
                descriptors::keep_from_programs();
                command
                    .arg(id.as_str())
                    .stdin(input)
                    .stdout(output)
                    .stderr(Stdio::null());
                return process::spawn(&mut command);
            }
            Self::Here(keep) => keep,
        };
        if let Some(child) = process::fork_apart(0)? {
            return Ok(child);
        }
        let set_up = || -> io::Result<()> {
            let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
            dup2_stdin(&input)?;
            dup2_stdout(&output)?;
            dup2_stderr(&null)?;
            standard_error::is_another();
            let (stdin, stdout) = (io::stdin(), io::stdout());
            // SAFETY: this process never comes back to what owns them.
            unsafe { descriptors::close_all_but(&[stdin.as_fd(), stdout.as_fd()]) };
            std::mem::forget((input, output, null));
            Ok(())
        };
        process::end(set_up().map_or(KILLED, |()| keep(id)))
    }
}

/// Why a service does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotStarted {
    /// There is no supervisor.
    #[error("the supervisor cannot be started")]
    NoSupervisor(#[source] io::Error),
    /// It does not answer.
    #[error("its supervisor does not answer")]
    Silent(#[source] io::Error),
    /// It has said why.
    #[error("{said}")]
    Told {
        /// Its words.
        said: String,
        /// The exit code that says the same.
        code: u8,
    },
}

/// A supervisor that waits for its turn. Without one it ends.
#[derive(Debug)]
pub struct Waiting {
    giving: Giving,
    starting: Starting,
}

impl Waiting {
    /// Starts that of an instance, which need not be there yet: it takes as long to begin as the instance to be made.
    ///
    /// # Errors
    /// When the host gives no process.
    pub fn begin(keeper: Keeper<'_>, id: &InstanceId) -> Result<Self, NotStarted> {
        let begin = || {
            let (giving, theirs) = Giving::pair()?;
            let (out, output) = pipe_with(PipeFlags::CLOEXEC)?;
            let starting = Starting {
                keeper: keeper.begin(id, theirs, output)?,
                out: BufReader::new(out.into()),
                said: String::new(),
            };
            Ok(Self { giving, starting })
        };
        begin().map_err(NotStarted::NoSupervisor)
    }

    /// The turn is the supervisor's until its service runs, or does not, which waits for somebody to be attached if it is
    /// attended. Whoever waits for the service to be well is told by `ready`.
    pub fn go_on(self, turn: Turn, attended: bool, ready: Option<OwnedFd>) -> Starting {
        // One that is gone has said why.
        let _ = self.giving.give(turn, attended, ready);
        self.starting
    }
}

/// A supervisor that was started.
#[derive(Debug)]
pub struct Starting {
    keeper: Child,
    out: BufReader<File>,
    said: String,
}

impl Starting {
    /// Starts that of an instance. The turn is the supervisor's until its service runs, or does not.
    ///
    /// # Errors
    /// As [`Waiting::begin`].
    pub fn begin(keeper: Keeper<'_>, id: &InstanceId, turn: Turn) -> Result<Self, NotStarted> {
        Ok(Waiting::begin(keeper, id)?.go_on(turn, false, None))
    }

    /// Waits until its service runs. Its supervisor is left to itself.
    ///
    /// # Errors
    /// Why it does not.
    pub fn wait(mut self) -> Result<Child, NotStarted> {
        for expected in [LISTENS, READY] {
            if self.next_word() != expected {
                return Err(self.failed());
            }
        }
        Ok(self.keeper)
    }

    /// What it says next.
    fn next_word(&mut self) -> String {
        self.said.clear();
        let mut out = (&mut self.out).take(MESSAGE_BYTES);
        // What it cannot say, it has not said.
        let _ = out.read_line(&mut self.said);
        self.said.clone()
    }

    /// Attaches to its service, before that runs.
    ///
    /// # Errors
    /// Why that is not possible.
    pub fn attach(mut self, instance: &Instance) -> Result<(Self, Agent), NotStarted> {
        if self.next_word() != LISTENS {
            return Err(self.failed());
        }
        let mut agent = attach(instance.directory()).map_err(NotStarted::Silent)?;
        agent.client().attach();
        Ok((self, agent))
    }

    /// Waits until it has ended, and returns the exit code of its service.
    ///
    /// # Errors
    /// Why that has never run.
    pub fn finish(mut self) -> Result<u8, NotStarted> {
        match self.next_word().as_str() {
            READY => Ok(self.code()),
            _ => Err(self.failed()),
        }
    }

    fn code(self) -> u8 {
        match self.keeper.wait() {
            Ok(Ended::Exited(code)) => code,
            _ => KILLED,
        }
    }

    /// Why its service does not run: it has said so, and is about to end.
    fn failed(mut self) -> NotStarted {
        let mut rest = (&mut self.out).take(MESSAGE_BYTES);
        let _ = rest.read_to_string(&mut self.said);
        let said = std::mem::take(&mut self.said);
        let code = self.code();
        let said = match said.trim_end() {
            "" => "its supervisor has ended without a word",
            said => said.strip_prefix("error: ").unwrap_or(said),
        };
        let said = said.to_owned();
        NotStarted::Told { said, code }
    }
}
