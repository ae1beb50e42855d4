//! A thread that serves a device: parked while the device is not active.

use super::orders::{Desk, Orders};
use crate::thread::{self, Beginning, OnStart, ThreadKind};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long whoever ends a worker's work waits for it, from when the work was told. What the host's kernel has not
/// given back by then is left to the worker's thread.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// A thread of a device that works from activation to reset, and is parked in between. It starts with its
/// first work, or with [`start`](Self::start) before: a process whose threads are confined starts none later.
/// Dropping the worker ends its work and its thread.
pub struct Worker {
    name: String,
    kind: ThreadKind,
    desk: Arc<Desk>,
    /// When its work was told to end.
    called_off: Option<Instant>,
    prepare: Option<Prepare>,
    thread: Option<JoinHandle<()>>,
}

type Prepare = Box<dyn FnOnce() + Send>;

impl Worker {
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

    /// Has the thread do something first when it is [started](Self::start) before its first work: what it will
    /// not be allowed to do later.
    pub fn prepared(mut self, prepare: impl FnOnce() + Send + 'static) -> Self {
        self.prepare = Some(Box::new(prepare));
        self
    }

    /// What its thread does.
    pub fn kind(&self) -> ThreadKind {
        self.kind
    }

    /// Begins to start the thread, which makes [preparations](Self::prepared), calls `on_start` and parks.
    /// `None` if there is one.
    ///
    /// # Errors
    /// When the host gives no thread.
    pub fn start(&mut self, on_start: &Arc<OnStart>) -> io::Result<Option<Beginning>> {
        let prepare = self.prepare.take();
        self.spawn(on_start, || {
            prepare.into_iter().for_each(|prepare| prepare())
        })
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

    /// Gives the thread work, which obeys its [`Orders`] soon after they are readable. The work before has
    /// [ended](Self::has_let_go).
    ///
    /// # Errors
    /// When the host gives no thread.
    pub fn work(&mut self, work: impl FnOnce(&Orders) + Send + 'static) -> io::Result<()> {
        self.desk.give(Box::new(work));
        self.called_off = None;
        let unconfined: Arc<OnStart> = Arc::new(|_| Ok(()));
        self.spawn(&unconfined, || ()).map(drop)
    }

    /// Tells the work to end, if there is any, and does not wait for it.
    pub fn call_off(&mut self) {
        if self.desk.call_off() {
            self.called_off.get_or_insert_with(Instant::now);
        }
    }

    /// Waits until the thread has let go of all of its work, but no longer than until then; returns whether it has.
    pub fn has_let_go(&self, deadline: Instant) -> bool {
        self.desk.is_parked(deadline)
    }

    /// Tells the work to stand still, and does not wait until it does.
    pub fn sleep(&mut self) {
        self.desk.sleep();
    }

    /// Waits until the work stands still, but no longer than until then; returns whether it does.
    pub fn is_still(&self, deadline: Instant) -> bool {
        self.desk.is_still(deadline)
    }

    /// Has the work go on that [stood still](Self::sleep).
    pub fn wake(&mut self) {
        self.desk.wake();
    }
}

impl Drop for Worker {
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
mod tests {
    use super::super::orders::Order;
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::os::fd::AsFd;
    use std::sync::mpsc::channel;

    const LONG: Duration = Duration::from_secs(10);

    fn until_halted(orders: &Orders) {
        loop {
            let fd = PollFd::from_borrowed_fd(orders.as_fd(), PollFlags::IN);
            poll(&mut [fd], None).unwrap();
            if orders.obey() {
                return;
            }
        }
    }

    fn worker() -> Worker {
        Worker::new("test", ThreadKind::Rng).unwrap()
    }

    fn halt(worker: &mut Worker) {
        worker.call_off();
        assert!(worker.has_let_go(Instant::now() + LONG));
    }

    #[test]
    fn one_thread_does_one_work_after_the_other() {
        let mut worker = worker();
        let begun = worker.start(&(Arc::new(|_| Ok(())) as _)).unwrap();
        begun.unwrap().wait().unwrap();
        let (tell, told) = channel();
        let mut threads = Vec::new();
        for _ in 0..3 {
            let tell = tell.clone();
            worker
                .work(move |orders| {
                    tell.send(std::thread::current().id()).unwrap();
                    until_halted(orders);
                    tell.send(std::thread::current().id()).unwrap();
                })
                .unwrap();
            threads.push(told.recv().unwrap());
            halt(&mut worker);
            // It has ended by now.
            threads.push(told.try_recv().unwrap());
        }
        assert!(threads.iter().all(|thread| *thread == threads[0]));
    }

    #[test]
    fn halting_is_no_matter_whether_there_is_work() {
        let mut worker = worker();
        halt(&mut worker);
        worker.work(until_halted).unwrap();
        halt(&mut worker);
        halt(&mut worker);
        worker.work(|_| ()).unwrap();
        halt(&mut worker);
        worker.work(until_halted).unwrap();
        drop(worker);
    }

    #[test]
    fn work_stands_still_while_it_sleeps_and_goes_on_or_ends() {
        let mut worker = worker();
        // Without work it is still.
        worker.sleep();
        assert!(worker.is_still(Instant::now()));
        worker.wake();
        for wakes in [true, false] {
            let (tell, told) = channel();
            let steps = move |orders: &Orders| {
                while orders.standing() == Order::Work || !orders.obey() {
                    let _ = tell.send(());
                }
            };
            worker.work(steps).unwrap();
            told.recv().unwrap();
            worker.sleep();
            assert!(worker.is_still(Instant::now() + LONG));
            told.try_iter().for_each(drop);
            (0..100).for_each(|_| std::thread::yield_now());
            assert!(told.try_recv().is_err());
            if wakes {
                worker.wake();
                told.recv().unwrap();
            }
            halt(&mut worker);
        }
    }

    /// What waits for the host's kernel, here for a sender, holds up nobody.
    #[test]
    fn work_that_does_not_end_is_left_behind() {
        let mut worker = worker();
        let (answer, answered) = channel::<()>();
        let (tell, told) = channel();
        worker
            .work(move |_| {
                tell.send(()).unwrap();
                let _ = answered.recv();
                drop(tell);
            })
            .unwrap();
        told.recv().unwrap();
        let since = Instant::now();
        worker.sleep();
        assert!(!worker.is_still(since + PATIENCE));
        worker.call_off();
        assert!(!worker.has_let_go(Instant::now()));
        drop(worker);
        assert!(since.elapsed() < LONG);
        assert!(told.try_recv().is_err());
        // Its thread ends when it is answered.
        drop(answer);
        assert!(told.recv().is_err());
    }
}
