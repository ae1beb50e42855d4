//! The terminal in raw mode, and back on every way out.

use rustix::process::getpgrp;
use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use std::sync::{Mutex, Once, PoisonError};

/// The modes to go back to, for the panic hook, which runs even where a panic aborts.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// While this lives, the terminal passes each key on as it is pressed.
pub(super) struct Raw(());

impl Raw {
    /// Sets raw mode if this process is in the foreground of the terminal that standard input is.
    pub fn enter() -> Option<Self> {
        if !in_foreground() {
            return None;
        }
        let now = tcgetattr(stdin()).ok()?;
        let mut raw = now.clone();
        raw.make_raw();
        // The guest's own terminal driver writes carriage returns; kvmlet's messages rely on the host's.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        saved().get_or_insert(now);
        restore_on_panic();
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(()))
    }

    /// Sets raw mode again: a shell may have set others while this process was stopped. `None` if somebody else has
    /// the terminal now.
    pub fn again(self) -> Option<Self> {
        std::mem::forget(self);
        if !in_foreground() {
            saved().take();
        }
        Self::enter()
    }

    /// Leaves the terminal as it is.
    pub fn disown(self) {
        saved().take();
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Only there may a terminal be read and set. Where it controls no process of ours, it has no foreground.
fn in_foreground() -> bool {
    tcgetpgrp(stdin()).map_or(true, |group| group == getpgrp())
}

fn saved() -> std::sync::MutexGuard<'static, Option<Termios>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn restore() {
    if let Some(before) = saved().take() {
        // The terminal may have gone away; then there is nothing to put back. And its reader may stand still: what was
        // written is not waited for.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}

fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            print(panic);
        }));
    });
}
