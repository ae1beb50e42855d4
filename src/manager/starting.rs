//! Starting the supervisor of an instance: a program of kvmlet's (`keep`), which says how far it is on its standard output.

use crate::supervision::attach;
use crate::{Giving, Instance, InstanceId, Turn};
use kvmlet_control::agent::Agent;
use kvmlet_sys::descriptors;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdout, Command, Stdio};

/// What a supervisor says when whoever likes can be attached to its service.
pub const LISTENS: &str = "listens\n";
/// What it says when its service runs.
pub const READY: &str = "ready\n";
/// No message is longer.
const MESSAGE_BYTES: u64 = 16 << 10;
/// The code of a process that was killed, as nobody else can tell it.
const KILLED: u8 = 137;

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
    /// `keeper` is the program that supervises, with its verb.
    ///
    /// # Errors
    /// When the host gives no process.
    pub fn begin(mut keeper: Command, id: &InstanceId) -> Result<Self, NotStarted> {
        let (giving, theirs) = Giving::pair().map_err(NotStarted::NoSupervisor)?;
        // It lives on, and would hold what whoever called has opened: a lock, or the end of a pipe.
        descriptors::keep_from_programs();
        keeper
            .arg(id.as_str())
            .stdin(theirs)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut keeper = keeper.spawn().map_err(NotStarted::NoSupervisor)?;
        let out = keeper.stdout.take();
        let out = out.ok_or_else(|| NotStarted::NoSupervisor(io::ErrorKind::BrokenPipe.into()))?;
        let starting = Starting {
            keeper,
            out: BufReader::new(out),
            said: String::new(),
        };
        Ok(Self { giving, starting })
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
    out: BufReader<ChildStdout>,
    said: String,
}

impl Starting {
    /// Starts that of an instance. The turn is the supervisor's until its service runs, or does not.
    ///
    /// # Errors
    /// As [`Waiting::begin`].
    pub fn begin(keeper: Command, id: &InstanceId, turn: Turn) -> Result<Self, NotStarted> {
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
    pub fn attach(&mut self, instance: &Instance) -> Result<Agent, NotStarted> {
        if self.next_word() != LISTENS {
            return Err(self.failed());
        }
        let mut agent = attach(instance.directory()).map_err(NotStarted::Silent)?;
        agent.client().attach();
        Ok(agent)
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

    fn code(&mut self) -> u8 {
        let ended = self.keeper.wait().ok();
        let code = ended.and_then(|status| status.code());
        code.map_or(KILLED, |code| code as u8)
    }

    /// Why its service does not run: it has said so, and is about to end.
    fn failed(&mut self) -> NotStarted {
        let mut rest = (&mut self.out).take(MESSAGE_BYTES);
        let _ = rest.read_to_string(&mut self.said);
        let code = self.code();
        let said = match self.said.trim_end() {
            "" => "its supervisor has ended without a word",
            said => said.strip_prefix("error: ").unwrap_or(said),
        };
        let said = said.to_owned();
        NotStarted::Told { said, code }
    }
}
