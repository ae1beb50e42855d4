//! The terminal in raw mode, and back on every way out.

use rustix::process::{getpgrp, getpid};
use rustix::stdio::stdin;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr,
};
use std::sync::{Mutex, PoisonError};

/// The modes to go back to, for the panic hook, which runs even where a panic aborts.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// While this lives, the terminal passes each key on as it is pressed.
pub(super) struct Raw(());

impl Raw {
    /// Sets raw mode if standard input is a terminal and this process is in its foreground.
    pub fn enter() -> Option<Self> {
        if !isatty(stdin()) || tcgetpgrp(stdin()).is_ok_and(|group| group != getpgrp()) {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // The guest's own terminal driver writes carriage returns; kvmlet's messages rely on the host's.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        restore_on_panic();
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        log::debug!(
            "terminal of process {} is in raw mode",
            getpid().as_raw_nonzero()
        );
        Some(Self(()))
    }
}

impl Raw {
    /// Leaves the terminal as it is.
    pub fn disown(self) {
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(before) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // The terminal may have gone away; then there is nothing to put back.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &before);
    }
}

fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        print(panic);
    }));
}
