//! The threads of a VM by what they do, and starting them.

use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, scope, yield_now};
use std::time::{Duration, Instant};

/// What a thread of a VM's process does. Each kind needs other things of the host, and can be held to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ThreadKind {
    /// Attends the VM: terminal, signals, the end. The process's first thread; the VM does not start it.
    EventLoop,
    /// Runs a vCPU.
    Vcpu,
    /// Serves a queue of a disk.
    Block,
    /// Serves a queue pair of a network interface.
    Net,
    /// Serves the entropy source.
    Rng,
    /// Serves the balloon: gives guest memory back.
    Balloon,
}

impl ThreadKind {
    /// All kinds.
    pub const ALL: [ThreadKind; 6] = [
        ThreadKind::EventLoop,
        ThreadKind::Vcpu,
        ThreadKind::Block,
        ThreadKind::Net,
        ThreadKind::Rng,
        ThreadKind::Balloon,
    ];
}

/// What each thread does before anything else: confine itself, say. An error keeps the VM from running.
pub type OnStart = dyn Fn(ThreadKind) -> io::Result<()> + Send + Sync;

/// A thread that has been started, and may not have called its [`OnStart`] yet.
#[must_use = "a thread that could not begin does nothing"]
#[derive(Debug)]
pub struct Beginning(Receiver<io::Result<()>>);

impl Beginning {
    /// Waits until the thread has begun.
    ///
    /// # Errors
    /// What `on_start` said to it; the thread has ended then.
    pub fn wait(self) -> io::Result<()> {
        match self.0.recv() {
            Ok(begun) => begun,
            Err(_) => Err(io::Error::other("the thread panicked")),
        }
    }
}

/// Starts a thread, which does `prepare`, calls `on_start`, and goes on with `body` if that agrees.
///
/// # Errors
/// When the host gives no thread.
pub fn spawn(
    name: &str,
    kind: ThreadKind,
    on_start: &Arc<OnStart>,
    prepare: impl FnOnce() + Send + 'static,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<(JoinHandle<()>, Beginning)> {
    let (tell, told) = sync_channel(1);
    let on_start = on_start.clone();
    // The kernel keeps 15 characters of a thread's name.
    let thread = Builder::new().name(name.into()).spawn(move || {
        prepare();
        let begun = on_start(kind);
        // Not kept: what it holds should not live as long as the thread.
        drop(on_start);
        let good = begun.is_ok();
        // Whoever started the thread waits, or has given up.
        let _ = tell.send(begun);
        drop(tell);
        if good {
            body();
        }
    })?;
    Ok((thread, Beginning(told)))
}

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

/// Locks what a thread may have left behind when it panicked. A device whose thread did is no worse than a broken
/// device: the others go on.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

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

    #[test]
    fn a_thread_begins_with_what_it_must_do() {
        static DONE: AtomicBool = AtomicBool::new(false);
        let on_start: Arc<OnStart> = Arc::new(|kind| {
            assert_eq!(kind, ThreadKind::Rng);
            DONE.store(true, Ordering::Release);
            Ok(())
        });
        let (thread, begun) = spawn("test", ThreadKind::Rng, &on_start, || (), || ()).unwrap();
        begun.wait().unwrap();
        assert!(DONE.load(Ordering::Acquire));
        thread.join().unwrap();
    }

    #[test]
    fn a_thread_that_cannot_begin_does_nothing_else() {
        let on_start: Arc<OnStart> = Arc::new(|_| Err(io::Error::other("no")));
        let body = || panic!("ran");
        let (thread, begun) = spawn("test", ThreadKind::Rng, &on_start, || (), body).unwrap();
        assert_eq!(begun.wait().unwrap_err().to_string(), "no");
        thread.join().unwrap();
    }
}
