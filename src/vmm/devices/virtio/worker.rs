//! A thread that serves a device: parked while the device is not active.

use super::desk::Desk;
use super::interrupt::Interrupt;
use super::orders::Patience;
use super::server::Server;
use crate::thread::{self, Beginning, OnStart, ThreadKind};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long whoever ends a worker's work waits for it, from when the work was told. What the host's kernel has not
/// given back by then is left to the worker's thread.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// A thread of a device that serves from activation to reset, and is parked in between. It starts with its
/// first work, or with [`start`](WorkerThread::start) before: a process whose threads are confined starts none later.
/// Dropping the worker ends its work and its thread.
pub struct Worker<S: Server> {
    name: String,
    kind: ThreadKind,
    desk: Arc<Desk<S>>,
    /// When its work was told to end.
    called_off: Option<Instant>,
    prepare: Option<Prepare>,
    thread: Option<JoinHandle<()>>,
}

type Prepare = Box<dyn FnOnce() + Send>;

/// A worker, whatever it serves with.
pub trait WorkerThread: Send {
    /// What its thread does.
    fn kind(&self) -> ThreadKind;

    /// Begins to start the thread, which makes [preparations](Worker::prepared), calls `on_start` and parks.
    /// `None` if there is one.
    ///
    /// # Errors
    /// When the host gives no thread.
    fn start(&mut self, on_start: &Arc<OnStart>) -> io::Result<Option<Beginning>>;

    /// Tells the work to end, if there is any, and does not wait for it.
    fn call_off(&mut self);

    /// Waits until the work has ended, but no longer than until then; returns whether it has.
    fn has_let_go(&self, deadline: Instant) -> bool;

    /// Tells the work to stand still, and does not wait until it does.
    fn pause(&mut self);

    /// Waits until the work stands still, but not longer than that; returns whether it does.
    fn is_still(&self, patience: Patience) -> bool;

    /// Tells the work to bring what is in flight to its end, and does not wait for it.
    fn put_to_sleep(&mut self);

    /// Waits until the work sleeps, but no longer than until then; returns whether it does.
    fn is_asleep(&self, deadline: Instant) -> bool;

    /// Has the work go on that [stood still](Self::pause) or [slept](Self::put_to_sleep).
    fn wake(&mut self);
}

impl<S: Server> Worker<S> {
    /// A worker whose thread does not exist yet.
    ///
    /// # Errors
    /// When the host gives no event.
    pub fn new(name: impl Into<String>, kind: ThreadKind) -> io::Result<Self> {
        Ok(Self {
            name: name.into(),
            kind,
            desk: Arc::new(Desk::new()?),
            called_off: None,
            prepare: None,
            thread: None,
        })
    }

    /// Has the thread do something first when it is [started](WorkerThread::start) before its first work: what it will
    /// not be allowed to do later.
    pub fn prepared(mut self, prepare: impl FnOnce() + Send + 'static) -> Self {
        self.prepare = Some(Box::new(prepare));
        self
    }

    /// Has the thread serve. The work before has [ended](WorkerThread::has_let_go). Should the server fail, `interrupt`
    /// tells the driver.
    ///
    /// # Errors
    /// When the host gives no thread.
    pub fn work(&mut self, server: S, interrupt: &Arc<Interrupt>) -> io::Result<()> {
        self.called_off = None;
        let unconfined: Arc<OnStart> = Arc::new(|_| Ok(()));
        self.spawn(&unconfined, || ())?;
        self.desk.give(server, interrupt.clone());
        Ok(())
    }

    /// Gives back what it served with, once the work has [ended](WorkerThread::has_let_go) or
    /// [sleeps](WorkerThread::is_asleep). `None` if there was no work, or it panicked.
    pub fn take(&mut self) -> Option<S> {
        self.desk.take()
    }

    /// Looks at what it serves with, while that [sleeps](WorkerThread::is_asleep). `None` if there is no work, or its thread
    /// has it.
    pub fn look<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        self.desk.look(look)
    }

    fn spawn(
        &mut self,
        on_start: &Arc<OnStart>,
        prepare: impl FnOnce() + Send + 'static,
    ) -> io::Result<Option<Beginning>> {
        if self.thread.is_some() {
            return Ok(None);
        }
        let desk = self.desk.clone();
        let body = move || desk.serve();
        let (thread, beginning) = thread::spawn(&self.name, self.kind, on_start, prepare, body)?;
        self.thread = Some(thread);
        Ok(Some(beginning))
    }
}

impl<S: Server> WorkerThread for Worker<S> {
    fn kind(&self) -> ThreadKind {
        self.kind
    }

    fn start(&mut self, on_start: &Arc<OnStart>) -> io::Result<Option<Beginning>> {
        let prepare = self.prepare.take();
        self.spawn(on_start, || {
            prepare.into_iter().for_each(|prepare| prepare())
        })
    }

    fn call_off(&mut self) {
        if self.desk.call_off() {
            self.called_off.get_or_insert_with(Instant::now);
        }
    }

    fn has_let_go(&self, deadline: Instant) -> bool {
        self.desk.has_ended(deadline)
    }

    fn pause(&mut self) {
        self.desk.pause();
    }

    fn is_still(&self, patience: Patience) -> bool {
        self.desk.is_still(patience)
    }

    fn put_to_sleep(&mut self) {
        self.desk.put_to_sleep();
    }

    fn is_asleep(&self, deadline: Instant) -> bool {
        self.desk.is_asleep(deadline)
    }

    fn wake(&mut self) {
        self.desk.wake();
    }
}

impl<S: Server> Drop for Worker<S> {
    /// A thread that waits for the host's kernel, and for nothing else, may do so for ever. It is left behind then, with
    /// what the kernel still works on: guest memory, for one, stays mapped until it has let go.
    fn drop(&mut self) {
        self.call_off();
        let deadline = self
            .called_off
            .map_or_else(Instant::now, |at| at + PATIENCE);
        let let_go = self.has_let_go(deadline);
        self.desk.leave();
        match self.thread.take() {
            Some(_) if !let_go => {
                let name = &self.name;
                log::warn!(
                    "{name}: the host's kernel has not ended a request; its thread and guest memory wait for it"
                );
            }
            // A worker that panicked has nothing to give back.
            Some(thread) => drop(thread.join()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
