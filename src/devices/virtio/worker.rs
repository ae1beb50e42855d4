//! A thread that serves a device: parked while the device is not active.

use crate::host::thread::{self, Beginning, OnStart, ThreadKind};
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use vmm_sys_util::eventfd::EventFd;

/// Tells the work of a worker to end: readable from then on.
#[derive(Clone, Debug)]
pub struct Stop(Arc<EventFd>);

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(EventFd::new(
            libc::EFD_NONBLOCK | libc::EFD_CLOEXEC,
        )?)))
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is owned by `self.0`, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

type Work = Box<dyn FnOnce(&Stop) + Send>;

/// What a worker's thread is about to do.
enum Seat {
    Parked,
    Given(Work),
    Busy,
    Leaving,
}

/// Where a worker and its thread meet.
struct Desk {
    seat: Mutex<Seat>,
    changed: Condvar,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, Seat>) -> MutexGuard<'a, Seat> {
        self.changed
            .wait(guard)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of the thread: one work after the other, until it is to leave.
    fn serve(&self, stop: &Stop) {
        /// Parks the thread even if its work panics: whoever waits for its end must not wait for ever.
        struct Park<'a>(&'a Desk);
        impl Drop for Park<'_> {
            fn drop(&mut self) {
                let mut seat = self.0.lock();
                if matches!(*seat, Seat::Busy) {
                    *seat = Seat::Parked;
                }
                self.0.changed.notify_all();
            }
        }
        loop {
            let mut seat = self.lock();
            let work = loop {
                match std::mem::replace(&mut *seat, Seat::Busy) {
                    Seat::Given(work) => break work,
                    Seat::Leaving => {
                        *seat = Seat::Leaving;
                        return;
                    }
                    _ => {
                        *seat = Seat::Parked;
                        seat = self.wait(seat);
                    }
                }
            };
            drop(seat);
            let _park = Park(self);
            work(stop);
        }
    }
}

/// A thread of a device that works from activation to reset, and is parked in between. It starts with its
/// first work, or with [`start`](Self::start) before: a process whose threads are confined starts none later.
/// Dropping the worker ends its work and its thread.
pub struct Worker {
    name: String,
    kind: ThreadKind,
    desk: Arc<Desk>,
    stop: Stop,
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
            desk: Arc::new(Desk {
                seat: Mutex::new(Seat::Parked),
                changed: Condvar::new(),
            }),
            stop: Stop::new()?,
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
        let (desk, stop) = (self.desk.clone(), self.stop.clone());
        let body = move || desk.serve(&stop);
        let (thread, beginning) = thread::spawn(&self.name, self.kind, on_start, prepare, body)?;
        self.thread = Some(thread);
        Ok(Some(beginning))
    }

    /// Gives the thread work, which must end soon after [`Stop`] is readable. The work before has been
    /// [halted](Self::halt).
    ///
    /// # Errors
    /// When the host gives no thread.
    pub fn work(&mut self, work: impl FnOnce(&Stop) + Send + 'static) -> io::Result<()> {
        *self.desk.lock() = Seat::Given(Box::new(work));
        self.desk.changed.notify_all();
        let unconfined: Arc<OnStart> = Arc::new(|_| Ok(()));
        self.spawn(&unconfined, || ()).map(drop)
    }

    /// Ends the work, if there is any, and waits until the thread has let go of all of it.
    pub fn halt(&mut self) {
        let mut seat = self.desk.lock();
        if let Seat::Given(_) = *seat {
            *seat = Seat::Parked;
        }
        if let Seat::Busy = *seat {
            // Cannot fail: the counter is far from full.
            let _ = self.stop.0.write(1);
            while let Seat::Busy = *seat {
                seat = self.desk.wait(seat);
            }
            let _ = self.stop.0.read();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.halt();
        *self.desk.lock() = Seat::Leaving;
        self.desk.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A worker that panicked has nothing to give back.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::sync::mpsc::channel;

    fn until_stopped(stop: &Stop) {
        let fd = PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN);
        poll(&mut [fd], None).unwrap();
    }

    #[test]
    fn one_thread_does_one_work_after_the_other() {
        let mut worker = Worker::new("test", ThreadKind::Rng).unwrap();
        let begun = worker.start(&(Arc::new(|_| Ok(())) as _)).unwrap();
        begun.unwrap().wait().unwrap();
        let (tell, told) = channel();
        let mut threads = Vec::new();
        for _ in 0..3 {
            let tell = tell.clone();
            worker
                .work(move |stop| {
                    tell.send(std::thread::current().id()).unwrap();
                    until_stopped(stop);
                    tell.send(std::thread::current().id()).unwrap();
                })
                .unwrap();
            threads.push(told.recv().unwrap());
            worker.halt();
            // It has ended by now.
            threads.push(told.try_recv().unwrap());
        }
        assert!(threads.iter().all(|thread| *thread == threads[0]));
    }

    #[test]
    fn halting_is_no_matter_whether_there_is_work() {
        let mut worker = Worker::new("test", ThreadKind::Rng).unwrap();
        worker.halt();
        worker.work(until_stopped).unwrap();
        worker.halt();
        worker.halt();
        worker.work(|_| ()).unwrap();
        worker.halt();
        worker.work(until_stopped).unwrap();
        drop(worker);
    }
}
