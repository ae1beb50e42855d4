//! Ending instances.

use crate::supervision::ask;
use crate::volumes::remove_with;
use crate::{Book, End, Error, Instance, Owned, State, Step, View};
use kvmlet_control::agent::AgentError;
use kvmlet_control::agent::channel::Request;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::time::{Duration, Instant};

/// How long whoever begins to run an instance may take until that is seen.
const BEGINNING: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOKS: Duration = Duration::from_millis(1);
/// How long a supervisor may take to be connected to, and to do what takes no time.
const PATIENCE: Duration = Duration::from_secs(30);

/// How an instance is to be ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// Its power is cut at once.
    pub cut: bool,
    /// How many seconds its service has, if not what it was run with.
    pub seconds: Option<u32>,
    /// The signal that asks it, if not what it was run with.
    pub signal: Option<u8>,
}

impl View {
    /// Does its supervisor live?
    pub fn is_alive(&self) -> bool {
        self.end.is_none()
    }
}

impl Instance {
    /// Asks its VM to end; false if there is none.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn ask_to_end(&self, view: &View, ending: Ending) -> Result<bool, Error> {
        let Ending {
            cut,
            seconds,
            signal: by,
        } = ending;
        let seconds = if cut { Some(0) } else { seconds };
        let request = Request::Stop {
            signal: by,
            timeout_ms: seconds.map(|seconds| seconds.saturating_mul(1000)),
        };
        if !cut
            && (seconds.is_some() || by.is_some())
            && let Some(done) = self.ask_to_stop(view, &request)
        {
            return done.map(|()| true);
        }
        match self.tell_supervisor(view, if cut { Signal::QUIT } else { Signal::TERM }) {
            Err(elsewhere @ Error::Elsewhere { .. }) => match self.ask_to_stop(view, &request) {
                Some(Ok(())) => Ok(true),
                Some(Err(_)) | None => Err(elsewhere),
            },
            told => told,
        }
    }

    /// Has the supervisor end its service, by its socket. Nothing if that does not run, or has ended by itself.
    fn ask_to_stop(&self, view: &View, request: &Request<'_>) -> Option<Result<(), Error>> {
        let runs = |view: &View| matches!(view.state, State::Running | State::Paused);
        if !runs(view) {
            return None;
        }
        match (self.ask_supervisor(view, request), self.view(None)) {
            (Err(_), Ok(view)) if !runs(&view) => None,
            (Err(_), Err(error)) => Some(Err(error)),
            (asked, _) => Some(asked),
        }
    }

    /// Has its supervisor do something with its service, which runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn ask_supervisor(&self, view: &View, request: &Request<'_>) -> Result<(), Error> {
        let (called, state) = (view.called().to_owned(), view.state);
        if !matches!(state, State::Running | State::Paused) {
            return Err(Error::NotRunning { called, state });
        }
        let asked = ask(self.directory(), request, PATIENCE);
        asked.map_err(|source| match source {
            AgentError::Failed { message, .. } => Error::Cannot { called, message },
            source => Error::Unasked { called, source },
        })
    }

    /// Sends its supervisor a signal; false if there is none.
    ///
    /// # Errors
    /// When that is not allowed; [`Error::Elsewhere`] when it is in a PID namespace that this process does not see.
    pub fn tell_supervisor(&self, view: &View, signal: Signal) -> Result<bool, Error> {
        let Some(keeper) = view.record.keeper.as_ref().filter(|_| view.is_alive()) else {
            return Ok(false);
        };
        let called = view.called();
        let pid = i32::try_from(keeper.pid).ok().and_then(Pid::from_raw);
        let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // Whoever has the number now is the supervisor only if that lives still, and began when it did: in another PID
        // namespace the number is somebody else's, or nobody's.
        let is_it = keeper.lives();
        let again = self.view(None)?;
        if !again.is_alive() || again.record.run != view.record.run {
            return Ok(false);
        }
        let Some(process) = process.filter(|_| is_it) else {
            let called = called.into();
            return Err(Error::Elsewhere { called });
        };
        match pidfd_send_signal(process, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(Error::Untold {
                called: called.into(),
                source: io::Error::from(error),
            }),
        }
    }
}

impl Book {
    /// All that is known of an instance now.
    ///
    /// # Errors
    /// As [`Instance::view`].
    pub fn view(&self, instance: &Instance) -> Result<View, Error> {
        instance.view(self.name_of(instance.id())?)
    }

    /// Ends an instance's VM, if it has one, and waits for that. It is not started again by itself. Between the two it is
    /// `asked`.
    ///
    /// # Errors
    /// When it cannot be asked, or what `asked` says.
    pub fn end<E: From<Error>>(
        &self,
        instance: &Instance,
        ending: Ending,
        mut asked: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let deadline = Instant::now() + BEGINNING;
        loop {
            let view = self.view(instance)?;
            match instance.ask_to_end(&view, ending) {
                Ok(true) => {
                    asked()?;
                    if instance.wait_for_run()? == End::Suspended {
                        continue;
                    }
                    return Ok(());
                }
                // It ends, perhaps: its lock is let go of last.
                Err(Error::Elsewhere { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(LOOKS);
                    continue;
                }
                Ok(false) => {}
                Err(error) => return Err(error.into()),
            }
            if view.state == State::Created {
                return Ok(());
            }
            match self.own(instance) {
                Ok(owned) => return Ok(self.stop_ended(instance, owned)?),
                // It was started at this moment.
                Err(Error::InUse { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(LOOKS);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Notes that somebody has stopped one that has no VM. What a suspended one was to go on from goes with that.
    fn stop_ended(&self, instance: &Instance, mut owned: Owned) -> Result<(), Error> {
        let was_suspended = owned.record().step == Step::Suspended;
        owned.give_up_saved()?;
        owned.set_stopped(true)?;
        if !was_suspended {
            return Ok(());
        }
        let name = self.name_of(instance.id())?;
        let code = owned.record().outcome.as_ref();
        let code = code.map_or(String::new(), |outcome| outcome.code.to_string());
        // An event that is not told is no reason to fail.
        let _ = self.tell("stop", instance.id(), name.as_ref(), []);
        let _ = self.tell("die", instance.id(), name.as_ref(), [("exitCode", code)]);
        let asked = instance.asked()?;
        if asked.remove {
            remove_with(self, &asked, || self.remove(owned))?;
            let _ = self.tell("destroy", instance.id(), name.as_ref(), []);
        }
        Ok(())
    }

    /// Removes an instance that does not run.
    ///
    /// # Errors
    /// When it does, or somebody else has it.
    pub fn remove_ended(&self, instance: &Instance, view: &View) -> Result<(), Error> {
        if view.state == State::Suspended {
            let (called, state) = (view.called().into(), view.state);
            return Err(Error::InUse { called, state });
        }
        // Nobody waits for a turn to be told that it runs.
        let _turn = (!view.is_alive()).then(|| instance.turn()).transpose()?;
        self.remove(self.own(instance)?)
    }

    /// Cuts an instance's power, whatever it does, and removes it.
    ///
    /// # Errors
    /// When it cannot be ended, or removed.
    pub fn end_and_remove(&self, instance: &Instance) -> Result<(), Error> {
        // Whoever is starting it has the turn until it runs, or has ended.
        let ending = Ending {
            cut: true,
            ..Ending::default()
        };
        self.end(instance, ending, || Ok::<(), Error>(()))?;
        let _turn = instance.turn()?;
        self.end(instance, ending, || Ok::<(), Error>(()))?;
        self.remove(self.own(instance)?)
    }
}
