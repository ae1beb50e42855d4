//! The process behind an instance that runs: in a session of its own, without a terminal.

use super::instances::book;
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::supervision::{ChannelSpec, Program, VSOCK, supervise};
use kvmlet_manager::{Book, Error, Instance, InstanceId};
use kvmlet_spec::ConsoleSize;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{chdir, setsid};
use rustix::stdio::dup2_stdout;
use serde_json::json;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a guest may take to start its service: a kernel that KVM interprets takes minutes on a busy host.
const PATIENCE: Duration = Duration::from_secs(300);
/// Of a terminal until somebody is attached to it.
const USUAL_SIZE: ConsoleSize = ConsoleSize {
    columns: 80,
    rows: 24,
};
/// What says that the service runs.
const READY: &str = "ready\n";
/// No message is longer.
const MESSAGE_BYTES: u64 = 16 << 10;

/// Supervise an instance: for kvmlet itself.
#[derive(Args)]
pub(super) struct Keep {
    /// Its id.
    id: String,
}

/// Why a service does not run, and the exit code that says so.
pub(super) struct NotStarted {
    pub failed: Failed,
    pub code: u8,
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
pub(super) fn detach(id: &InstanceId) -> Result<(), NotStarted> {
    let failed = |text: String| NotStarted {
        failed: Failed::new(text),
        code: kvmlet_command::FAILED,
    };
    let unstarted = |error: io::Error| failed(format!("the supervisor cannot be started: {error}"));
    let program = std::env::current_exe().map_err(unstarted)?;
    let mut keeper = Command::new(program)
        .args(["keep", id.as_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(unstarted)?;
    let mut said = String::new();
    if let Some(out) = keeper.stdout.take() {
        let read = out.take(MESSAGE_BYTES).read_to_string(&mut said);
        read.map_err(unstarted)?;
    }
    if said == READY {
        return Ok(());
    }
    // It is about to end.
    let ended = keeper.wait();
    let code = ended.ok().and_then(|status| status.code());
    let error = match said.trim_end() {
        "" => "its supervisor has ended without a word",
        said => said.strip_prefix("error: ").unwrap_or(said),
    };
    Err(NotStarted {
        code: code.map_or(kvmlet_command::FAILED, |code| code as u8),
        ..failed(error.into())
    })
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
        let service = asked.service.describe(&asked.command, USUAL_SIZE);
        let mut config = asked.config.clone();
        config["vsock"] = json!({ "path": VSOCK, "agent": true });
        let input = serde_json::to_vec(&config).map_err(Failed::new)?;
        // The name of its socket has little room, and its directory takes much of it.
        let place = instance.directory().path().to_path_buf();
        let own = std::env::current_exe().map_err(Failed::new)?;
        let command = || {
            let mut command = Command::new(&own);
            command.args(["boot", "--config", "-"]).current_dir(&place);
            command
        };
        let program = Program {
            command: &command,
            input: &input,
            ready: Some("--ready-fd"),
            channel: Some(ChannelSpec {
                service: &service,
                patience: PATIENCE,
            }),
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
