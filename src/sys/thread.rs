//! Doing two things at the same time, and locks that outlive panics.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, scope, yield_now};
use std::time::{Duration, Instant};

/// Does `work` in a thread of that name while this thread does `meanwhile`, and waits for both. Where the host
/// gives no thread, `work` comes first and the other after it.
///
/// The thread may be seen in `/proc` for a moment longer.
pub fn beside<A: Send, B>(
    name: &str,
    work: impl FnOnce() -> A + Send,
    meanwhile: impl FnOnce() -> B,
) -> (A, B) {
    // To wake a processor that has gone to sleep takes up to a fifth of a millisecond where the host is a virtual
    // machine itself. Whoever else wants this one gets it.
    const AWAKE: Duration = Duration::from_micros(400);
    // A thread that does not come to be would take the work along with it.
    let (work, done) = (Mutex::new(Some(work)), Mutex::new(None));
    let run = || {
        let work = lock(&work).take();
        *lock(&done) = work.map(|work| work());
    };
    let other = scope(|scope| {
        let Ok(thread) = Builder::new().name(name.into()).spawn_scoped(scope, run) else {
            run();
            return meanwhile();
        };
        let other = meanwhile();
        let since = Instant::now();
        while !thread.is_finished() && since.elapsed() < AWAKE {
            yield_now();
        }
        other
    });
    match lock(&done).take() {
        Some(done) => (done, other),
        None => unreachable!("the scope ends when the work is done"),
    }
}

/// Waits for a change, as [`lock`] does.
pub fn wait<'a, T>(changed: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Locks what a thread may have left behind when it panicked. A device whose thread did is no worse than a broken
/// device: the others go on.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_things_are_done_at_the_same_time() {
        let both = std::sync::Barrier::new(2);
        let mine = std::thread::current().id();
        let (theirs, text) = beside(
            "test",
            || {
                both.wait();
                std::thread::current().id()
            },
            || {
                both.wait();
                "done"
            },
        );
        assert_ne!(theirs, mine);
        assert_eq!(text, "done");
    }
}
