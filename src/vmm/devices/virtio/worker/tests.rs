//! Workers that serve by steps.

use super::*;
use crate::devices::virtio::interrupt::silence::Silence;
use crate::devices::virtio::orders::{Order, Orders};
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
