//! Doing two things at the same time, threads that serve, and locks that outlive panics.

use super::event::Event;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, scope, yield_now};
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

/// A thread that serves until this is dropped: then it is told to end, and waited for.
#[derive(Debug)]
pub struct Serving {
    stop: Event,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Starts it. It ends when the event that `serve` is given is signalled.
    ///
    /// # Errors
    /// When the host gives no thread, or no event.
    pub fn start(name: &str, serve: impl FnOnce(Event) + Send + 'static) -> io::Result<Self> {
        let stop = Event::new()?;
        let stopped = stop.try_clone()?;
        let thread = Builder::new().name(name.into());
        let thread = Some(thread.spawn(move || serve(stopped))?);
        Ok(Self { stop, thread })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.signal();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
    use crate::wait::{self, Slot, Until};
    use std::os::fd::AsFd;
    use std::sync::mpsc::channel;

    #[test]
    fn who_serves_is_told_to_end_and_waited_for() {
        let (ended, has_ended) = channel();
        let serving = Serving::start("test", move |stop| {
            wait::one(Slot::readable(stop.as_fd()), Until::Forever).unwrap();
            ended.send(()).unwrap();
        });
        assert!(has_ended.try_recv().is_err());
        drop(serving.unwrap());
        has_ended.try_recv().unwrap();
    }

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
