//! The process behind an instance that runs: in a session of its own, without a terminal.

use super::held::Held;
use super::instances::book;
use super::{Failed, Outcome, beside};
use crate::boot::{StartedBy, described, help_without_init, run_here};
use clap::Args;
use kvmlet_host::walls::rights;
use kvmlet_manager::starting::{
    Keeper, LISTENS, NotStarted as Unstarted, READY, Starting, Waiting,
};
use kvmlet_manager::supervision::{
    ChannelSpec, Handed, Here, Holds, Program, Step, VSOCK, supervise,
};
use kvmlet_manager::volumes::{Users, remove_with};
use kvmlet_manager::{
    Asked, Book, Error, Given, Instance, InstanceId, Owned, SUSPENDED, Step as Noted, Turn,
};
use kvmlet_spec::ConsoleSize;
use kvmlet_sys::signals::{self, ENDING};
use kvmlet_sys::{arguments, process};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{chdir, setsid};
use rustix::stdio::{dup2_stdin, dup2_stdout, stdout};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::cell::Cell;
use std::io::{self, Write};
use std::process::Command;
use std::time::Duration;

/// How long a guest may take to start its service: a kernel that KVM interprets takes minutes on a busy host.
const PATIENCE: Duration = Duration::from_secs(300);
/// Of a terminal until somebody is attached to it.
const USUAL_SIZE: ConsoleSize = ConsoleSize {
    columns: 80,
    rows: 24,
};

/// Supervise an instance: for kvmlet itself. On its standard input comes the turn in which that is started.
#[derive(Args)]
pub(super) struct Keep {
    /// Whose flags messages name.
    #[arg(long, value_name = "VERB", default_value = "")]
    started_by: String,
    /// The interfaces of one that is resumed, instead of those that were asked for.
    #[arg(long, value_name = "JSON")]
    nets: Option<String>,
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

impl From<Unstarted> for NotStarted {
    fn from(error: Unstarted) -> Self {
        let (code, failed) = match error {
            Unstarted::Told { said, code } => (code, Failed::new(said)),
            Unstarted::NoSupervisor(why) => {
                let what = "the supervisor cannot be started";
                (kvmlet_command::FAILED, Failed::in_vain(what, why))
            }
            Unstarted::Silent(why) => {
                let what = "its supervisor does not answer";
                (kvmlet_command::FAILED, Failed::in_vain(what, why))
            }
            error => (kvmlet_command::FAILED, Failed::new(error)),
        };
        Self { failed, code }
    }
}

/// A supervisor that waits for its turn, and whose messages name settings as that verb does.
///
/// # Errors
/// When there is none.
pub(super) fn waiting(id: &InstanceId, by: StartedBy) -> Result<Waiting, Failed> {
    let waiting = Waiting::begin(keeper(by)?, id).map_err(NotStarted::from);
    Ok(waiting?)
}

/// What supervises an instance, and names settings in messages as that verb does: a fork of this process if that can be.
pub(super) fn keeper(by: StartedBy) -> Result<Keeper<'static>, Failed> {
    let own = beside::is_machine()?;
    if own && process::has_one_thread().map_err(Failed::new)? {
        return Ok(Keeper::Here(Box::new(move |id| {
            arguments::show(&["keep", id.as_str()]);
            // What `-v` asks for is for whoever waits, and no message of the service.
            log::set_max_level(log::max_level().min(log::LevelFilter::Warn));
            let keep = Keep {
                started_by: by.name().into(),
                nets: None,
                id: id.to_string(),
            };
            kvmlet_command::run(|| keep.run())
        })));
    }
    Ok(Keeper::Program(program(by)?))
}

/// That as a program.
pub(super) fn program(by: StartedBy) -> Result<Command, Failed> {
    let mut command = beside::machine()?;
    command.arg("keep").args([StartedBy::FLAG, by.name()]);
    Ok(command)
}

/// Starts an instance's supervisor, and returns when its service runs.
///
/// # Errors
/// Why it does not.
pub(super) fn detach(id: &InstanceId, turn: Turn) -> Result<(), NotStarted> {
    Starting::begin(keeper(StartedBy::Again)?, id, turn)?.wait()?;
    Ok(())
}

impl Keep {
    #[inline(never)] // see `kvmlet_cli::run`
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

    /// Takes out of the book what was made to be started, and never was.
    fn forget_made(&self, book: &Book) {
        let forget_it = || -> Result<(), Error> {
            let instance = book.find(&self.id)?;
            let asked = instance.asked()?;
            // Somebody else may be starting it.
            let _turn = instance.turn()?;
            let owned = book.own(&instance)?;
            if instance.record()?.started.is_none() {
                remove(book, &instance, &asked, owned)?;
            }
            Ok(())
        };
        // It was not made, or somebody else has it.
        let _ = forget_it();
    }

    fn keep(&self) -> Outcome {
        let started_by = StartedBy::of(&self.started_by);
        started_by.speak();
        let book = book()?;
        let given = Given::wait(io::stdin()).map_err(Failed::new)?;
        let Some(given) = given else {
            // Nothing has come of it, or whoever has made it was killed.
            if started_by.makes() {
                self.forget_made(&book);
            }
            return Ok(0);
        };
        // It is over when this is another file.
        dup2_stdin(given.turn).map_err(|error| Failed::new(io::Error::from(error)))?;
        let ready = Cell::new(given.ready);
        let instance = book.find(&self.id)?;
        let asked = instance.asked()?;
        let service = asked.service.describe(&asked.command, USUAL_SIZE);
        let mut config = asked.config.clone();
        if let Some(nets) = &self.nets {
            config["nets"] = serde_json::from_str(nets).map_err(Failed::new)?;
        }
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
        let record = instance.record()?;
        let resumes = record.step == Noted::Suspended;
        let restore = || {
            let mut command = Command::new(&own);
            command.args(["restore", "--config", "-"]).args(by);
            match resumes {
                true => command.args(["--paused", SUSPENDED]),
                false => command.args(&asked.snapshot),
            };
            command.current_dir(&place);
            command
        };
        let holds: &dyn Fn() -> Box<dyn Holds> = &|| {
            Box::new(Held {
                input: input.clone(),
                place: place.clone(),
                snapshot: asked.snapshot.clone(),
                suspends: (own.clone(), instance.id().to_string()),
                networks: None,
                failed: None,
            })
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
        let goes_on = resumes || (asked.snapshot.is_some() && record.started.is_none());
        let first: &dyn Fn() -> Command = &restore;
        let program = Program {
            command: &command,
            first: goes_on.then_some(first),
            resumes,
            input: input.as_bytes(),
            here: Some(here),
            holds: asked.idle.map(|_| holds),
            ready: Some("--ready-fd"),
            channel: Some(ChannelSpec {
                service: &service,
                patience: PATIENCE,
                attended: given.attended.then(stdout),
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
            Step::Fails(error) if resumes => tell(error),
            Step::Fails(error) => tell(&explained(error, &config)),
        };
        let (owned, last) = supervise(&book, keeper, &asked, &program, told)?;
        // How it has ended survives a loss of power, unless nobody wants to know. Of one that never had a VM there is nothing
        // to look at but what was told, and its name is for the next attempt.
        let never_was = !last.began && started_by.makes();
        match !last.suspended && (asked.remove || never_was) {
            true => {
                remove(&book, &instance, &asked, owned)?;
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

/// Takes an instance out of the book, which is told, with what was made for it alone.
fn remove(book: &Book, instance: &Instance, asked: &Asked, owned: Owned) -> Result<(), Error> {
    let name = book.name_of(instance.id())?;
    remove_with(book, asked, || book.remove(owned))?;
    if let Err(error) = book.tell("destroy", instance.id(), name.as_ref(), []) {
        log::warn!("the event `destroy` is not told: {error}");
    }
    Ok(())
}
