//! Suspensions as others see them: those whose client was killed, and those whose supervisor lives on.

use crate::supervision::GO_ON;
use crate::{Error, Instance, State, View};
use kvmlet_control::{ConnectionError, Order};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// How long a VM has to say whether it stands still.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long one may take to go on: whoever is asked for its service has five minutes for that, too.
const GOING_ON: Duration = Duration::from_secs(330);
/// Between two looks.
const LOOKS: Duration = Duration::from_millis(1);

impl View {
    /// Is it suspended, and goes on by itself when something comes for it?
    pub fn sleeps(&self) -> bool {
        self.state == State::Suspended && self.is_alive() && self.record.sleeps
    }
}

impl Instance {
    /// Finds out what has come of a suspension whose client has ended in the middle: true if it is suspended, or is from now
    /// on. If it goes on, what was saved of it is gone.
    ///
    /// # Errors
    /// When neither is known.
    pub fn settle_suspension(&self) -> Result<bool, Error> {
        // Its client had it.
        let _turn = self.turn()?;
        let called = self.called();
        if let Ok(mut control) = self.control(&called) {
            let asked = control.connection().ask(Order::Suspended, PATIENCE);
            match asked {
                Err(error) if error.is_late() => return Ok(false),
                // It goes on, and nothing can bring it to stand still for that file.
                Err(ConnectionError::Refused(_)) => {
                    self.forget_saved()?;
                    return Ok(false);
                }
                Ok(_) | Err(_) => self.wait_for_rest()?,
            }
        }
        Ok(self.state()? == State::Suspended)
    }

    /// Waits until one whose end, or suspension, is noted has no VM any more.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn wait_for_rest(&self) -> Result<(), Error> {
        loop {
            let view = self.view(None)?;
            match view.state {
                // Whoever wants it to go on, or looks what the host has left, is not in the way of what ends.
                _ if !view.is_alive() => {
                    drop(self.own()?);
                    return Ok(());
                }
                State::Suspended if !view.record.sleeps => std::thread::sleep(LOOKS),
                State::Suspended => return Ok(()),
                _ if view.asked.idle.is_some() => return Ok(()),
                _ => drop(self.wait_for_run()?),
            }
        }
    }

    /// Has one go on whose supervisor has its VM do that when something comes for it; false if it is none of those.
    ///
    /// # Errors
    /// Why it does not.
    pub fn rouse(&self) -> Result<bool, Error> {
        let mut view = self.view(None)?;
        if view.state == State::Suspended && view.is_alive() {
            // It was noted at this moment.
            self.wait_for_rest()?;
            view = self.view(None)?;
        }
        if !view.sleeps() {
            return Ok(false);
        }
        let (called, before) = (view.called().to_owned(), view.record.suspensions);
        let signal = Signal::from_named_raw(GO_ON).unwrap_or(Signal::USR1);
        self.tell_supervisor(&view, signal)?;
        let deadline = Instant::now() + GOING_ON;
        loop {
            let view = self.view(None)?;
            let is_there = matches!(view.state, State::Running | State::Paused);
            // It may have been suspended again by now.
            if is_there || view.record.suspensions != before {
                return Ok(true);
            }
            let begins = matches!(view.state, State::Suspended | State::Restarting);
            if !(begins && view.is_alive()) || Instant::now() >= deadline {
                let message = view.record.unresumed.clone();
                let message = message.unwrap_or_else(|| format!("it {}", view.state.instead()));
                let message = format!("be resumed: {message}");
                return Err(Error::Cannot { called, message });
            }
            std::thread::sleep(LOOKS);
        }
    }
}
