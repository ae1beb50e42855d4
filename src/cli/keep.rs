//! The process behind an instance that runs: in a session of its own, without a terminal.

use super::instances::book;
use super::{Failed, Outcome, beside};
use crate::boot::{StartedBy, described, help_without_init, run_here};
use clap::Args;
use kvmlet_control::agent::Agent;
use kvmlet_host::walls::rights;
use kvmlet_manager::supervision::{
    ChannelSpec, Handed, Here, Program, Step, VSOCK, attach, supervise,
};
use kvmlet_manager::volumes::{Users, forget};
use kvmlet_manager::{Book, Error, Given, Giving, Instance, InstanceId, Turn};
use kvmlet_spec::ConsoleSize;
use kvmlet_sys::descriptors;
use kvmlet_sys::signals::{self, ENDING};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{chdir, setsid};
use rustix::stdio::{dup2_stdin, dup2_stdout};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// How long a guest may take to start its service: a kernel that KVM interprets takes minutes on a busy host.
const PATIENCE: Duration = Duration::from_secs(300);
/// Of a terminal until somebody is attached to it.
const USUAL_SIZE: ConsoleSize = ConsoleSize {
    columns: 80,
    rows: 24,
};
/// What says that whoever likes can be attached.
const LISTENS: &str = "listens\n";
/// What says that the service runs.
const READY: &str = "ready\n";
/// No message is longer.
const MESSAGE_BYTES: u64 = 16 << 10;

/// Supervise an instance: for kvmlet itself. On its standard input comes the turn in which that is started.
#[derive(Args)]
pub(super) struct Keep {
    /// Its service is not started before somebody is attached to it.
    #[arg(long)]
    attended: bool,
    /// Whose flags messages name.
    #[arg(long, value_name = "VERB", default_value = "")]
    started_by: String,
    /// Its id.
    id: String,
}

/// Why a service does not run, and the exit code that says so.
pub(super) struct NotStarted {
    pub failed: Failed,
    pub code: u8,
}

impl From<Failed> for NotStarted {
    fn from(failed: Failed) -> Self {
        let code = kvmlet_command::FAILED;
        Self { failed, code }
    }
}

impl From<NotStarted> for Failed {
    fn from(error: NotStarted) -> Self {
        error.failed
    }
}

/// Starts an instance's supervisor, and returns when its service runs.
///
/// # Errors
/// Why it does not.
pub(super) fn detach(id: &InstanceId, turn: Turn) -> Result<(), NotStarted> {
    Starting::begin(id, turn)?.wait()
}

/// A supervisor that waits for its turn. Without one it ends.
pub(super) struct Waiting {
    giving: Giving,
    starting: Starting,
}

impl Waiting {
    /// Starts that of an instance, which need not be there yet: it takes as long to begin as the instance to be made. Its
    /// service waits for somebody to be attached if it is attended.
    pub fn begin(id: &InstanceId, attended: bool, by: StartedBy) -> Result<Self, NotStarted> {
        let (giving, theirs) = Giving::pair().map_err(unstarted)?;
        let mut command = beside::machine()?;
        // It lives on, and would hold what whoever called has opened: a lock, or the end of a pipe.
        descriptors::keep_from_programs();
        command
            .arg("keep")
            .args(attended.then_some("--attended"))
            .args([StartedBy::FLAG, by.name()])
            .arg(id.as_str())
            .stdin(theirs)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut keeper = command.spawn().map_err(unstarted)?;
        let out = keeper.stdout.take();
        let out = out.ok_or_else(|| unstarted(io::ErrorKind::BrokenPipe.into()))?;
        let starting = Starting {
            keeper,
            out: BufReader::new(out),
            said: String::new(),
        };
        Ok(Self { giving, starting })
    }

    /// The turn is the supervisor's until its service runs, or does not. Whoever waits for the service to be well is told by
    /// `ready`.
    pub fn go_on(self, turn: Turn, ready: Option<OwnedFd>) -> Starting {
        // One that is gone has said why.
        let _ = self.giving.give(turn, ready);
        self.starting
    }
}

fn unstarted(error: io::Error) -> NotStarted {
    NotStarted {
        failed: Failed::in_vain("the supervisor cannot be started", error),
        code: kvmlet_command::FAILED,
    }
}

/// A supervisor that was started.
pub(super) struct Starting {
    keeper: Child,
    out: BufReader<ChildStdout>,
    said: String,
}

impl Starting {
    /// Starts that of an instance. The turn is the supervisor's until its service runs, or does not.
    pub fn begin(id: &InstanceId, turn: Turn) -> Result<Self, NotStarted> {
        Ok(Waiting::begin(id, false, StartedBy::Again)?.go_on(turn, None))
    }

    /// Waits until its service runs.
    pub fn wait(mut self) -> Result<(), NotStarted> {
        for expected in [LISTENS, READY] {
            if self.next_word()? != expected {
                return Err(self.failed());
            }
        }
        Ok(())
    }

    /// What it says next.
    fn next_word(&mut self) -> Result<String, NotStarted> {
        self.said.clear();
        let mut out = (&mut self.out).take(MESSAGE_BYTES);
        // What it cannot say, it has not said.
        let _ = out.read_line(&mut self.said);
        Ok(self.said.clone())
    }

    /// Attaches to its service, before that runs.
    pub fn attach(&mut self, instance: &Instance) -> Result<Agent, NotStarted> {
        if self.next_word()? != LISTENS {
            return Err(self.failed());
        }
        let mut agent = attach(instance.directory()).map_err(|error| NotStarted {
            failed: Failed::in_vain("its supervisor does not answer", error),
            code: kvmlet_command::FAILED,
        })?;
        agent.client().attach();
        Ok(agent)
    }

    /// Waits until it has ended, and returns the exit code of its service, or why that has never run.
    pub fn finish(mut self) -> Result<u8, NotStarted> {
        match self.next_word()?.as_str() {
            READY => Ok(self.code()),
            _ => Err(self.failed()),
        }
    }

    fn code(&mut self) -> u8 {
        let ended = self.keeper.wait().ok();
        let code = ended.and_then(|status| status.code());
        code.map_or(137, |code| code as u8)
    }

    /// Why its service does not run: it has said so, and is about to end.
    fn failed(&mut self) -> NotStarted {
        let mut rest = (&mut self.out).take(MESSAGE_BYTES);
        let _ = rest.read_to_string(&mut self.said);
        let code = self.code();
        let error = match self.said.trim_end() {
            "" => "its supervisor has ended without a word",
            said => said.strip_prefix("error: ").unwrap_or(said),
        };
        NotStarted {
            failed: Failed::new(error.to_owned()),
            code,
        }
    }
}

impl Keep {
    pub fn run(self) -> Outcome {
        // Whoever started it may end without it.
        let _ = setsid();
        // A script has its jobs in the background ignore some, by which instances are ended.
        signals::heed(&ENDING);
        let _ = chdir("/");
        match self.keep() {
            Ok(code) => Ok(code),
            Err(failed) => {
                tell(&failed.to_string());
                Ok(kvmlet_command::FAILED)
            }
        }
    }

    fn keep(&self) -> Outcome {
        let started_by = StartedBy::of(&self.started_by);
        started_by.speak();
        let book = book()?;
        let given = Given::wait(io::stdin()).map_err(Failed::new)?;
        let Some(Given { turn, ready }) = given else {
            // Nothing has come of it.
            return Ok(0);
        };
        // It is over when this is another file.
        dup2_stdin(turn).map_err(|error| Failed::new(io::Error::from(error)))?;
        let ready = Cell::new(ready);
        let instance = book.find(&self.id)?;
        let asked = instance.asked()?;
        let service = asked.service.describe(&asked.command, USUAL_SIZE);
        let mut config = asked.config.clone();
        config["vsock"] = json!({ "path": VSOCK, "agent": true });
        let input = serde_json::to_string(&config).map_err(Failed::new)?;
        // The name of its socket has little room, and its directory takes much of it.
        let place = instance.directory().path().to_path_buf();
        let own = std::env::current_exe().map_err(Failed::new)?;
        let by = [StartedBy::FLAG, started_by.name()];
        let command = || {
            let mut command = Command::new(&own);
            command
                .args(["boot", "--config", "-"])
                .args(by)
                .current_dir(&place);
            command
        };
        let restore = || {
            let mut command = Command::new(&own);
            command
                .args(["restore", "--config", "-"])
                .args(by)
                .args(&asked.snapshot)
                .current_dir(&place);
            command
        };
        let here: &dyn Fn() -> Here = &|| {
            // Where its paths begin.
            let config = chdir(&place).map_err(|error| Failed::new(io::Error::from(error)));
            let config = config.and_then(|()| described(&input));
            Box::new(move |Handed { ready, control }| {
                kvmlet_command::run(|| run_here(config?, ready, control))
            })
        };
        // Whoever has run before boots: what it went on from is past.
        let goes_on = asked.snapshot.is_some() && instance.record()?.started.is_none();
        let first: &dyn Fn() -> Command = &restore;
        let program = Program {
            command: &command,
            first: goes_on.then_some(first),
            input: input.as_bytes(),
            here: Some(here),
            ready: Some("--ready-fd"),
            channel: Some(ChannelSpec {
                service: &service,
                patience: PATIENCE,
                attended: self.attended,
            }),
            control: Some("--control-fd"),
            well: &|| {
                // Who does not wait any longer need not be told.
                let _ = ready
                    .take()
                    .map(|ready| rustix::io::write(ready, b"ready\n"));
            },
            confine: rights::keep_books,
        };
        Users::of_mounts(&book, &asked)?.refuse_taken(instance.id(), &asked)?;
        let begun = book.own(&instance)?.begin();
        let keeper = begun.map_err(|error| book.by_name(instance.id(), error))?;
        let told = &mut |told: Step<'_>| match told {
            Step::Listens => say(LISTENS),
            Step::Runs => {
                tell(READY);
                settle(&instance);
            }
            Step::Fails(error) => tell(&explained(error, &config)),
        };
        let (owned, last) = supervise(&book, keeper, &program, told)?;
        // How it has ended survives a loss of power, unless nobody wants to know. Of one that never had a VM there is nothing
        // to look at but what was told, and its name is for the next attempt.
        let never_was = !last.began && started_by != StartedBy::Again;
        match asked.remove || never_was {
            true => {
                remove(&book, &instance, owned)?;
                forget(&book, &asked)?;
            }
            false => owned.sync()?,
        }
        Ok(last.code)
    }
}

/// Why it does not run, with what may be missing: a kernel without anything to start panics, and knows no more than that.
fn explained<'a>(error: &'a str, config: &Value) -> Cow<'a, str> {
    match config["initrd"].is_null() && !error.contains("help: ") {
        true => format!("{error}\n  help: {}", help_without_init()).into(),
        false => error.into(),
    }
}

/// Tells whoever waits, and may have gone away.
fn say(text: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Tells whoever waits, who does not from then on. Whose turn it was, it is not any more.
fn tell(text: &str) {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    if let Ok(null) = &null {
        let _ = dup2_stdin(null);
    }
    say(text);
    if let Ok(null) = null {
        let _ = dup2_stdout(&null);
    }
}

/// Has what was asked survive a loss of power: later than the start, which would take some milliseconds more.
fn settle(instance: &Instance) {
    if let Err(error) = instance.sync() {
        log::warn!("what was asked may not survive a loss of power: {error}");
    }
}

fn remove(book: &Book, instance: &Instance, owned: kvmlet_manager::Owned) -> Result<(), Error> {
    let name = book.name_of(instance.id())?;
    book.remove(owned)?;
    if let Err(error) = book.tell("destroy", instance.id(), name.as_ref(), []) {
        log::warn!("the event `destroy` is not told: {error}");
    }
    Ok(())
}
