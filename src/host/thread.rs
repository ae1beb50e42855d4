//! The threads of a VM by what they do, and starting them.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

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

/// What each thread does before anything else: confine itself, say. An error keeps the VM from running.
pub type OnStart = dyn Fn(ThreadKind) -> io::Result<()> + Send + Sync;

/// Starts a thread, and returns when it has called `on_start`.
///
/// # Errors
/// When the host gives no thread, and what `on_start` says.
pub fn spawn(
    name: &str,
    kind: ThreadKind,
    on_start: &Arc<OnStart>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let on_start = on_start.clone();
    // The kernel keeps 15 characters of a thread's name.
    let thread = Builder::new().name(name.into()).spawn(move || {
        let begun = on_start(kind);
        // Not kept: what it holds should not live as long as the thread.
        drop(on_start);
        let good = begun.is_ok();
        // Whoever started the thread waits.
        let _ = tell.send(begun);
        drop(tell);
        if good {
            body();
        }
    })?;
    match told.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(_) => {
            let _ = thread.join();
            Err(io::Error::other("the thread panicked"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_thread_begins_with_what_it_must_do() {
        static DONE: AtomicBool = AtomicBool::new(false);
        let on_start: Arc<OnStart> = Arc::new(|kind| {
            assert_eq!(kind, ThreadKind::Rng);
            DONE.store(true, Ordering::Release);
            Ok(())
        });
        let thread = spawn("test", ThreadKind::Rng, &on_start, || ()).unwrap();
        assert!(DONE.load(Ordering::Acquire));
        thread.join().unwrap();
    }

    #[test]
    fn a_thread_that_cannot_begin_does_nothing_else() {
        let on_start: Arc<OnStart> = Arc::new(|_| Err(io::Error::other("no")));
        let result = spawn("test", ThreadKind::Rng, &on_start, || panic!("ran"));
        assert_eq!(result.unwrap_err().to_string(), "no");
    }
}
