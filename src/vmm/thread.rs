//! The threads of a VM by what they do, and starting them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
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
    /// Has the host's kernel serve a queue pair of a network interface (vhost).
    Vhost,
    /// Serves the entropy source.
    Rng,
    /// Serves the balloon: gives guest memory back.
    Balloon,
    /// Serves sockets between guest and host.
    Vsock,
}

impl ThreadKind {
    /// All kinds.
    pub const ALL: [ThreadKind; 8] = [
        ThreadKind::EventLoop,
        ThreadKind::Vcpu,
        ThreadKind::Block,
        ThreadKind::Net,
        ThreadKind::Vhost,
        ThreadKind::Rng,
        ThreadKind::Balloon,
        ThreadKind::Vsock,
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
