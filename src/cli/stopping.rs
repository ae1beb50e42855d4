//! Ending instances, and asking their services for less.

use super::Failed;
use super::instances::agent::PATIENCE;
use super::instances::{look_again, signal};
use super::logs::follow;
use kvmlet_control::agent::AgentError;
use kvmlet_control::agent::channel::Request;
use kvmlet_manager::logs::{Selection, Stream, Streams};
use kvmlet_manager::{Book, Error, Instance, Moment, State, View, supervision};
use kvmlet_sys::standard_error;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long whoever begins to run an instance may take until that is seen.
const BEGINNING: Duration = Duration::from_secs(5);

/// How an instance is to be ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ending {
    /// Its power is cut at once.
    pub cut: bool,
    /// How many seconds its service has, if not what it was run with.
    pub seconds: Option<u32>,
    /// The signal that asks it, if not what it was run with.
    pub signal: Option<u8>,
}

/// Ends an instance's VM, if it has one, and waits for that, which can be told. It is not started again by itself.
pub(super) fn stop(
    book: &Book,
    instance: &Instance,
    ending: Ending,
    tells: bool,
) -> Result<(), Failed> {
    let deadline = Instant::now() + BEGINNING;
    let since = Moment::now();
    loop {
        let view = look_again(book, instance)?;
        if ask_to_end(instance, &view, ending)? {
            if tells {
                tell_steps(instance, since)?;
            }
            instance.wait()?;
            return Ok(());
        }
        if view.state == State::Created {
            return Ok(());
        }
        match book.own(instance) {
            Ok(mut owned) => return Ok(owned.set_stopped(true)?),
            // It was started at this moment.
            Err(Error::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks an instance's VM to end; false if there is none.
fn ask_to_end(instance: &Instance, view: &View, ending: Ending) -> Result<bool, Failed> {
    let Ending {
        cut,
        seconds,
        signal: by,
    } = ending;
    if cut {
        return signal(instance, view, Signal::QUIT);
    }
    let runs = |view: &View| matches!(view.state, State::Running | State::Paused);
    if (seconds.is_some() || by.is_some()) && runs(view) {
        let request = Request::Stop {
            signal: by,
            timeout_ms: seconds.map(|seconds| seconds.saturating_mul(1000)),
        };
        match ask(instance, view, &request) {
            Ok(()) => return Ok(true),
            Err(failed) if runs(&instance.view(None)?) => return Err(failed),
            // It has ended by itself, or is going to be started again.
            Err(_) => {}
        }
    }
    signal(instance, view, Signal::TERM)
}

/// Has the supervisor of an instance that runs do something with its service.
pub(super) fn ask(instance: &Instance, view: &View, request: &Request<'_>) -> Result<(), Failed> {
    let (called, state) = (view.called().to_owned(), view.state);
    if !matches!(state, State::Running | State::Paused) {
        return Err(Error::NotRunning { called, state }.into());
    }
    let asked = supervision::ask(instance.directory(), request, PATIENCE);
    asked.map_err(|error| match error {
        AgentError::Failed { message, .. } => {
            Failed::new(format!("instance `{called}` cannot {message}"))
        }
        error => Failed::in_vain(format!("instance `{called}` cannot be asked"), error),
    })
}

/// Tells, on standard error, what kvmlet does to end an instance, until that has ended.
fn tell_steps(instance: &Instance, since: Moment) -> Result<(), Failed> {
    let selection = Selection {
        since: Some(since),
        streams: Streams::All,
        ..Selection::default()
    };
    follow(instance, &selection, |entry| {
        if entry.stream == Stream::Kvmlet {
            standard_error::tell(&entry.text);
        }
        Ok(true)
    })
}
