//! A VM for another program: in a process of its own, with everything that the command has.
//!
//! A program that has threads must not be forked to run on. So the supervisor of an instance is this program's own
//! executable, started anew (`/proc/self/exe`): [`init`] finds out that it is that, and does not return. The supervisor has
//! one thread until the VM's process is forked from it.

mod handover;
mod link;
mod logger;
mod running;
mod surroundings;

pub use running::Running;
pub use surroundings::{Streams, Surroundings, Verbosity};

use crate::vsock::SocketName;
use crate::{Attendant, ControlListener, Error, StatsFile, run};
use handover::{Handover, Received};
use kvmlet_control::{Channel, Connection, Pool, PoolError, Report};
use kvmlet_spec::{Dialect, Outcome, Reason, Remedy, VmConfig};
use kvmlet_sys::whole_file::WholeFile;
use kvmlet_sys::{environment, process, standard_error, streams};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a supervisor has to say that it is one. It does so before anything else.
const PATIENCE: Duration = Duration::from_secs(10);

/// This program has called [`init`].
static IS_READY: AtomicBool = AtomicBool::new(false);

/// Makes this program one that can [start](Instance::start) instances. To be called first thing in `main`, before there is
/// any other thread: in the processes that instances run in it does not return.
pub fn init() {
    let started = Instant::now();
    if let Some(handed) = handover::received() {
        streams::set_up();
        process::end(serve(handed, started));
    }
    IS_READY.store(true, Ordering::Release);
}

/// A VM with what surrounds it.
#[derive(Debug)]
pub struct Instance;

impl Instance {
    /// Starts a VM, and returns when its guest runs: with its walls, its share of the host, its networks.
    ///
    /// It waits for that, some milliseconds as a rule; a program with an async runtime does so on a thread that may wait.
    ///
    /// # Errors
    /// [`Error::Uninitialised`] when this program has not called [`init`], and what is wrong with the VM or its host.
    pub fn start(config: VmConfig, surroundings: Surroundings) -> Result<Running, Error> {
        if !IS_READY.load(Ordering::Acquire) {
            return Err(Error::Uninitialised);
        }
        let handover = Handover::new(&config, &surroundings)?;
        let (channel, theirs) = Channel::pair().map_err(|source| Error::Host {
            what: "a socket to the supervisor",
            source,
        })?;
        let child = handover.start(theirs, surroundings)?;
        let mut running = Running::new(child, channel)?;
        running.until_served(PATIENCE)?;
        running.until_ready()?;
        Ok(running)
    }

    /// Finds an instance that runs by its [socket](Surroundings::control), and holds it: it was started by a program that is
    /// gone, or has [left](Running::leave) it alone. It is held as if it had been started here, but the statistics in its
    /// outcome are those that were asked for last. Whoever else holds it is told its end, too.
    ///
    /// # Errors
    /// [`Error::Unattached`] when nobody listens there: it has ended, and [`Surroundings::outcome`] tells how.
    /// [`Error::Refused`] when as many hold it as it tells its end.
    pub fn attach(control: &Path) -> Result<Running, Error> {
        let connection = Connection::to(control).map_err(|source| Error::Unattached {
            path: control.into(),
            source,
        })?;
        Running::at(connection, PATIENCE)
    }

    /// Takes a VM of a pool (`kvmlet pool create`), which was restored before: its guest runs on when this returns. It is held as
    /// if it had been started here, and outlives the pool, which has started it.
    ///
    /// # Errors
    /// Why the pool gives none.
    pub fn take(pool: &mut Pool, patience: Duration) -> Result<(Running, Streams), PoolError> {
        Ok(Running::taken(pool.take(patience)?))
    }
}

/// Runs a VM, as the process that it was started for.
fn serve(handed: Result<Received, Error>, started: Instant) -> u8 {
    let ended = handed.and_then(|handed| {
        environment::disarm().map_err(Error::Environment)?;
        logger::start(handed.verbosity);
        let hello = Report::Answer {
            to: 0,
            refused: None,
        };
        let _ = handed.channel.try_send(&hello.encode());
        supervise(handed, started)
    });
    let code = match &ended {
        Ok(outcome) => u8::from(outcome.reason == Reason::Failed),
        Err(error) => {
            standard_error::say(format_args!("kvmlet: {error}"));
            if let Some(remedy) = error.remedy() {
                standard_error::say(format_args!("  help: {remedy}"));
            }
            1
        }
    };
    standard_error::finish();
    code
}

fn supervise(handed: Received, started: Instant) -> Result<Outcome, Error> {
    let Received {
        config,
        channel,
        outlives,
        outcome,
        control,
        ..
    } = handed;
    let mut attendant = Attendant {
        started,
        upstream: Some(channel),
        outlives,
        ..Attendant::default()
    };
    let config = config.and_then(|config| {
        let stats = config.stats.as_deref().map(StatsFile::open).transpose()?;
        let warn = |error| log::warn!("{error}");
        attendant.stats = stats.map(|file| file.sink(warn).0);
        // It is found to be writable before there is anything to be written, and not kept: a process in the jail must not
        // have it.
        outcome.as_deref().map(WholeFile::open).transpose()?;
        let socket = control.as_deref().map(SocketName::make).transpose()?;
        let (listener, name) = socket.unzip();
        let listener = listener.map(ControlListener::new).transpose();
        attendant.control = listener.map_err(Error::handing)?;
        Ok((config, name))
    });
    // The socket's name is removed when all else is told.
    let (config, _name) = match config {
        Ok(config) => config,
        Err(error) => return attendant.refuse(error),
    };
    let ended = run(config, attendant);
    if let Some(path) = outcome {
        let ended = match &ended {
            Ok(outcome) => outcome.clone(),
            Err(error) => error.outcome_in(Dialect::File),
        };
        let json = serde_json::to_string(&ended).unwrap_or_default() + "\n";
        WholeFile::open(&path)?.write(json.as_bytes())?;
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that would run its program from the start, and so would that which it starts.
    #[test]
    fn without_init_nothing_is_started() {
        let config = VmConfig::builder().kernel("vmlinux").build().unwrap();
        let error = Instance::start(config, Surroundings::default()).unwrap_err();
        assert!(matches!(error, Error::Uninitialised), "{error}");
        assert!(error.remedy().is_some());
    }
}
