//! The end of waiting: what a thread waits for, a lock or another program, may not matter any more.
//!
//! Who waits for long asks again and again. What the answer is made of is a matter of the thread: `kvmlet`'s first one
//! is called by signals, others by an event, and threads of programs that this crate is built into by nothing.

use super::event::Event;
use super::signals::{ENDING, set_of};
use super::wait::{self, Slot, Until};
use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering};

/// What was waited for does not matter any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Interrupted {
    /// A signal has come that asks this process to end.
    #[error("ended by signal {0}")]
    Signal(libc::c_int),
    /// Whoever started the thread wants its end.
    #[error("the thread is to end")]
    Event,
}

impl From<Interrupted> for io::Error {
    fn from(interrupted: Interrupted) -> Self {
        io::Error::other(interrupted)
    }
}

enum Caller {
    Nobody,
    Signals,
    Event(Event),
}

thread_local! {
    static CALLER: RefCell<Caller> = const { RefCell::new(Caller::Nobody) };
}

/// The last signal that has ended what was waited for; zero if none has.
static INTERRUPTED_BY: AtomicI32 = AtomicI32::new(0);

/// From now on a signal of [`ENDING`] that is blocked and comes while this thread waits ends the waiting. Each ends
/// what is waited for once: what is then cleared away may wait again, until the next comes.
pub fn by_signals() {
    CALLER.set(Caller::Signals);
}

/// From now on this thread does not wait any longer once the event is signalled.
pub fn by_event(event: Event) {
    CALLER.set(Caller::Event(event));
}

/// To be asked again and again by whoever waits.
///
/// # Errors
/// When it is time to give up.
pub fn check() -> Result<(), Interrupted> {
    CALLER.with_borrow(|caller| match caller {
        Caller::Nobody => Ok(()),
        Caller::Signals => take_signal(),
        Caller::Event(event) => match wait::one(Slot::readable(event.as_fd()), Until::Now) {
            Ok(true) => Err(Interrupted::Event),
            _ => Ok(()),
        },
    })
}

fn take_signal() -> Result<(), Interrupted> {
    let none = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the set is initialized, and both outlive the call.
    match unsafe { libc::sigtimedwait(&set_of(&ENDING), null_mut(), &none) } {
        signal if signal > 0 => {
            INTERRUPTED_BY.store(signal, Ordering::Relaxed);
            Err(Interrupted::Signal(signal))
        }
        _ => Ok(()),
    }
}

/// The last signal that has ended what was waited for, if one has.
pub fn interrupted_by() -> Option<libc::c_int> {
    match INTERRUPTED_BY.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;
    use crate::signals::Signals;

    #[test]
    fn each_signal_ends_waiting_once() {
        alone("interrupt::tests::each_signal_ends_waiting_once", || {
            for signal in ENDING {
                // Those that were ignored would stay so, as under nohup.
                // SAFETY: no memory is involved.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
            let _signals = Signals::take(&ENDING).unwrap();
            // SAFETY: the signals are blocked in all threads that there are.
            let send = |signal| unsafe { libc::kill(libc::getpid(), signal) };
            send(libc::SIGTERM);
            let nobody = "whoever has not asked for it is left alone";
            assert_eq!(check(), Ok(()), "{nobody}");
            by_signals();
            assert_eq!(check(), Err(Interrupted::Signal(libc::SIGTERM)));
            assert_eq!(check(), Ok(()));
            send(libc::SIGHUP);
            assert_eq!(check(), Err(Interrupted::Signal(libc::SIGHUP)));
            assert_eq!(interrupted_by(), Some(libc::SIGHUP));
        });
    }

    #[test]
    fn a_thread_that_is_to_end_waits_no_longer() {
        std::thread::spawn(|| {
            let event = Event::new().unwrap();
            by_event(event.try_clone().unwrap());
            assert_eq!(check(), Ok(()));
            event.signal();
            assert_eq!(check(), Err(Interrupted::Event));
            assert_eq!(check(), Err(Interrupted::Event));
        })
        .join()
        .unwrap();
    }
}
