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
mod tests {
    use super::super::interrupt::silence::Silence;
    use super::super::orders::{Order, Orders};
    use super::*;
    use kvmlet_sys::wait::{self, Slot, Until};
    use std::os::fd::AsFd;
    use std::sync::mpsc::channel;

    const LONG: Duration = Duration::from_secs(10);
    /// Longer than the host is waited for.
    const BUSY: Duration = Duration::from_secs(1);

    type Step = Box<dyn FnMut(&Orders) -> Result<(), &'static str> + Send>;

    /// Serves by steps, and has as much in flight.
    struct Steps {
        step: Step,
        in_flight: u32,
        abandoned: bool,
    }

    impl Server for Steps {
        type Failure = &'static str;

        fn serve(&mut self, orders: &Orders) -> Result<(), &'static str> {
            while orders.are_to_work() {
                (self.step)(orders)?;
                self.in_flight += 1;
            }
            Ok(())
        }

        fn finish(&mut self, orders: &Orders) -> Result<bool, &'static str> {
            while self.in_flight > 0 && orders.standing() == Order::Sleep {
                self.in_flight -= 1;
            }
            Ok(self.in_flight == 0)
        }

        fn abandon(&mut self) {
            self.abandoned = true;
        }
    }

    fn steps(step: impl FnMut(&Orders) -> Result<(), &'static str> + Send + 'static) -> Steps {
        Steps {
            step: Box::new(step),
            in_flight: 0,
            abandoned: false,
        }
    }

    /// Waits for another order.
    fn idle(orders: &Orders) -> Result<(), &'static str> {
        wait::one(Slot::readable(orders.as_fd()), Until::Forever).unwrap();
        Ok(())
    }

    fn worker() -> Worker<Steps> {
        Worker::new("test", ThreadKind::Rng).unwrap()
    }

    fn interrupt() -> Arc<Interrupt> {
        let interrupt = Arc::new(Interrupt::new("test", Arc::new(Silence)));
        interrupt.begin();
        interrupt
    }

    fn halt(worker: &mut Worker<Steps>) -> Option<Steps> {
        worker.call_off();
        assert!(worker.has_let_go(Instant::now() + LONG));
        worker.take()
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
            let step = move |orders: &Orders| {
                tell.send(std::thread::current().id()).unwrap();
                idle(orders)
            };
            worker.work(steps(step), &interrupt()).unwrap();
            threads.push(told.recv().unwrap());
            assert!(halt(&mut worker).unwrap().abandoned);
        }
        assert!(threads.iter().all(|thread| *thread == threads[0]));
    }

    #[test]
    fn halting_is_no_matter_whether_there_is_work() {
        let mut worker = worker();
        assert!(halt(&mut worker).is_none());
        worker.work(steps(idle), &interrupt()).unwrap();
        assert!(halt(&mut worker).is_some());
        assert!(halt(&mut worker).is_none());
        worker.work(steps(idle), &interrupt()).unwrap();
        drop(worker);
    }

    #[test]
    fn work_that_fails_lets_go_and_then_asks_for_a_reset() {
        let mut worker = worker();
        let interrupt = interrupt();
        worker.work(steps(|_| Err("no")), &interrupt).unwrap();
        assert!(worker.has_let_go(Instant::now() + LONG));
        assert!(interrupt.is_broken());
        // It is not tried again, whatever is said.
        worker.pause();
        worker.wake();
        worker.put_to_sleep();
        assert!(worker.is_asleep(Instant::now()));
        let server = worker.take().unwrap();
        assert!((server.abandoned, server.in_flight) == (true, 0));
    }

    #[test]
    fn work_that_panics_is_waited_for_by_nobody() {
        let mut worker = worker();
        let step = |_: &Orders| -> Result<(), &'static str> { panic!("as it is to") };
        worker.work(steps(step), &interrupt()).unwrap();
        assert!(worker.has_let_go(Instant::now() + LONG));
        assert!(worker.take().is_none());
    }

    #[test]
    fn work_stands_still_and_goes_on_or_ends() {
        let mut worker = worker();
        // Without work it is still.
        worker.pause();
        assert!(worker.is_still(Patience::of(Duration::ZERO)));
        worker.wake();
        for wakes in [true, false] {
            let (tell, told) = channel();
            let step = move |_: &Orders| tell.send(()).map_err(|_| "nobody listens");
            worker.work(steps(step), &interrupt()).unwrap();
            told.recv().unwrap();
            worker.pause();
            assert!(worker.is_still(Patience::of(LONG)));
            told.try_iter().for_each(drop);
            (0..100).for_each(|_| std::thread::yield_now());
            assert!(told.try_recv().is_err());
            if wakes {
                worker.wake();
                told.recv().unwrap();
            }
            assert!(halt(&mut worker).unwrap().in_flight > 0);
        }
    }

    #[test]
    fn work_that_sleeps_has_nothing_in_flight_and_wakes_here_or_elsewhere() {
        let mut worker = worker();
        let (tell, told) = channel();
        let step = move |_: &Orders| tell.send(()).map_err(|_| "nobody listens");
        worker.work(steps(step), &interrupt()).unwrap();
        for elsewhere in [false, true] {
            told.recv().unwrap();
            worker.pause();
            worker.put_to_sleep();
            assert!(worker.is_asleep(Instant::now() + LONG));
            told.try_iter().for_each(drop);
            if elsewhere {
                let server = worker.take().unwrap();
                assert!((server.in_flight, server.abandoned) == (0, false));
                worker = self::worker();
                worker.work(server, &interrupt()).unwrap();
            } else {
                worker.wake();
            }
            told.recv().unwrap();
        }
    }

    /// It is given up before one that has not had its turn yet.
    #[test]
    fn who_waits_for_the_host_is_not_waited_for_long() {
        for with_host in [true, false] {
            let mut worker = worker();
            let (tell, told) = channel();
            let step = move |orders: &Orders| {
                let act = || tell.send(()).map(|()| std::thread::sleep(BUSY));
                let sent = if with_host {
                    orders.with_host(act)
                } else {
                    act()
                };
                sent.map_err(|_| "nobody listens")
            };
            worker.work(steps(step), &interrupt()).unwrap();
            told.recv().unwrap();
            worker.pause();
            let until = Instant::now() + LONG;
            let patience = Patience {
                until,
                host: PATIENCE,
            };
            assert_eq!(worker.is_still(patience), !with_host);
            worker.wake();
            // And is waited for again once the host has answered.
            told.recv().unwrap();
            halt(&mut worker).unwrap();
        }
    }

    /// What waits for the host's kernel, here for a sender, holds up nobody.
    #[test]
    fn work_that_does_not_end_is_left_behind() {
        let mut worker = worker();
        let (answer, answered) = channel::<()>();
        let (tell, told) = channel();
        let step = move |_: &Orders| {
            tell.send(()).map_err(|_| "nobody listens")?;
            let _ = answered.recv();
            Ok(())
        };
        worker.work(steps(step), &interrupt()).unwrap();
        told.recv().unwrap();
        let since = Instant::now();
        worker.pause();
        assert!(!worker.is_still(Patience::of(PATIENCE)));
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
