//! The process behind an instance that runs: in a session of its own, without a terminal.

use super::instances::book;
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::supervision::{Program, supervise};
use kvmlet_manager::{Book, Error, Instance, InstanceId};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{chdir, setsid};
use rustix::stdio::dup2_stdout;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

/// What says that the VM runs.
const READY: &str = "ready\n";
/// No message is longer.
const MESSAGE_BYTES: u64 = 16 << 10;

/// Supervise an instance: for kvmlet itself.
#[derive(Args)]
pub(super) struct Keep {
    /// Its id.
    id: String,
}

/// Starts an instance's supervisor, and returns when its VM runs.
///
/// # Errors
/// Why it does not.
pub(super) fn detach(id: &InstanceId) -> Result<(), Failed> {
    let failed =
        |error: io::Error| Failed::new(format!("the supervisor cannot be started: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut keeper = Command::new(program)
        .args(["keep", id.as_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut said = String::new();
    if let Some(out) = keeper.stdout.take() {
        out.take(MESSAGE_BYTES)
            .read_to_string(&mut said)
            .map_err(failed)?;
    }
    if said == READY {
        return Ok(());
    }
    // It is about to end.
    let _ = keeper.wait();
    let error = match said.trim_end() {
        "" => "its supervisor has ended without a word",
        said => said.strip_prefix("error: ").unwrap_or(said),
    };
    Err(Failed::new(error.to_owned()))
}

impl Keep {
    pub fn run(self) -> Outcome {
        // Whoever started it may end without it.
        let _ = setsid();
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
        let book = book()?;
        let instance = book.find(&self.id)?;
        let asked = instance.asked()?;
        let input = serde_json::to_vec(&asked.config).map_err(Failed::new)?;
        let own = std::env::current_exe().map_err(Failed::new)?;
        let command = || {
            let mut command = Command::new(&own);
            command.args(["boot", "--config", "-"]);
            command
        };
        let program = Program {
            command: &command,
            input: &input,
            ready: Some("--ready-fd"),
        };
        let keeper = instance.own()?.begin()?;
        let told = &mut |told: Result<(), &str>| match told {
            Ok(()) => {
                tell(READY);
                settle(&instance);
            }
            Err(error) => tell(error),
        };
        let (owned, last) = supervise(&book, keeper, &program, told)?;
        // How it has ended survives a loss of power, unless nobody wants to know.
        match asked.remove {
            true => remove(&book, &instance, owned)?,
            false => owned.sync()?,
        }
        Ok(last.code)
    }
}

/// Tells whoever waits, who does not from then on.
fn tell(text: &str) {
    let mut out = io::stdout();
    // It may have gone away.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Ok(null) = open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
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
