//! Where a device's thread meets whoever directs it: a server, orders, and what has become of them.

use super::interrupt::Interrupt;
use super::orders::{Order, Orders, Patience};
use super::server::Server;
use kvmlet_sys::thread::{lock, wait};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often whoever waits for a thread looks what that waits for.
const LOOKS: Duration = Duration::from_millis(5);

/// What the thread does, and with what.
struct Task<S> {
    server: S,
    /// For its failure.
    interrupt: Arc<Interrupt>,
    condition: Condition,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// It does as it is told.
    Due,
    /// Nothing of it is in flight, and it goes on when it is to work.
    Asleep,
    /// It has ended, and is there to be taken.
    Ended,
}

impl<S: Server> Task<S> {
    /// Whether there is something to do about that order.
    fn concerns(&self, order: Order) -> bool {
        match (order, self.condition) {
            (_, Condition::Ended) | (Order::Pause, _) => false,
            (Order::Sleep, condition) => condition == Condition::Due,
            (Order::Work | Order::Halt, _) => true,
        }
    }

    fn obey(&mut self, order: Order, orders: &Orders) {
        let done = match order {
            Order::Work => self.server.serve(orders).map(|()| Condition::Due),
            Order::Sleep => self.server.finish(orders).map(|finished| match finished {
                true => Condition::Asleep,
                false => Condition::Due,
            }),
            Order::Pause => return,
            Order::Halt => {
                self.server.abandon();
                Ok(Condition::Ended)
            }
        };
        self.condition = done.unwrap_or_else(|why| {
            // First the kernel lets go of the driver's buffers, then the driver hears of it.
            self.server.abandon();
            self.interrupt.needs_reset(&why);
            Condition::Ended
        });
    }
}

struct Seat<S> {
    task: Option<Task<S>>,
    /// The thread has the task.
    busy: bool,
    /// The thread is to end when its task has.
    leaving: bool,
}

impl<S> Seat<S> {
    fn is_in(&self, conditions: &[Condition]) -> bool {
        let task = self.task.as_ref();
        !self.busy && task.is_none_or(|task| conditions.contains(&task.condition))
    }
}

/// Where a worker and its thread meet.
pub(super) struct Desk<S> {
    seat: Mutex<Seat<S>>,
    changed: Condvar,
    /// Given while the seat is locked.
    orders: Orders,
}

impl<S: Server> Desk<S> {
    /// One without a server.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            seat: Mutex::new(Seat {
                task: None,
                busy: false,
                leaving: false,
            }),
            changed: Condvar::new(),
            orders: Orders::new()?,
        })
    }

    /// Gives the thread a server, and has it begin. A failure of it is told by `interrupt`.
    pub fn give(&self, server: S, interrupt: Arc<Interrupt>) {
        let mut seat = self.lock();
        seat.task = Some(Task {
            server,
            interrupt,
            condition: Condition::Due,
        });
        self.order(Order::Work);
    }

    /// Takes a server away that the thread does nothing with.
    pub fn take(&self) -> Option<S> {
        let task = self.lock().task.take();
        task.map(|task| task.server)
    }

    /// Looks at a server that the thread does nothing with.
    pub fn look<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        let seat = self.lock();
        seat.task.as_ref().map(|task| look(&task.server))
    }

    /// Tells the server to end; returns whether there is any that is to notice.
    pub fn call_off(&self) -> bool {
        let seat = self.lock();
        let works = !seat.is_in(&[Condition::Ended]);
        if works {
            self.order(Order::Halt);
        }
        works
    }

    /// Tells the server to stand still.
    pub fn pause(&self) {
        self.change(&[Order::Work], Order::Pause);
    }

    /// Tells the server to bring to its end what is in flight.
    pub fn put_to_sleep(&self) {
        self.change(&[Order::Work, Order::Pause], Order::Sleep);
    }

    /// Has a server go on that stood still, or slept.
    pub fn wake(&self) {
        self.change(&[Order::Pause, Order::Sleep], Order::Work);
    }

    /// Has the thread end when its server has.
    pub fn leave(&self) {
        self.lock().leaving = true;
        self.changed.notify_all();
    }

    /// Waits until the server has ended, if there is one, but no longer than until then; returns whether it has.
    pub fn has_ended(&self, deadline: Instant) -> bool {
        self.wait_until(deadline, |seat| seat.is_in(&[Condition::Ended]))
    }

    /// Waits until the server sleeps, or has ended, but no longer than until then; returns whether it does.
    pub fn is_asleep(&self, deadline: Instant) -> bool {
        let conditions = [Condition::Asleep, Condition::Ended];
        self.wait_until(deadline, |seat| seat.is_in(&conditions))
    }

    /// Waits until the server stands still, but not longer than that; returns whether it does.
    pub fn is_still(&self, patience: Patience) -> bool {
        let mut asked = None;
        loop {
            let now = Instant::now();
            asked = match self.orders.are_with_host() {
                true => asked.or(Some(now)),
                false => None,
            };
            let limit = asked.map_or(patience.until, |at| patience.until.min(at + patience.host));
            if self.wait_until(limit.min(now + LOOKS), |seat| !seat.busy) {
                return true;
            }
            if Instant::now() >= limit {
                return false;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seat<S>> {
        lock(&self.seat)
    }

    /// Changes the order; the seat is the caller's.
    fn order(&self, order: Order) {
        self.orders.give(order);
        self.changed.notify_all();
    }

    fn change(&self, from: &[Order], to: Order) {
        let _seat = self.lock();
        if from.contains(&self.orders.standing()) {
            self.order(to);
        }
    }

    /// Waits until `is_so`, or until the deadline; returns whether it is.
    fn wait_until(&self, deadline: Instant, is_so: impl Fn(&Seat<S>) -> bool) -> bool {
        let mut seat = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if is_so(&seat) || left.is_zero() {
                return is_so(&seat);
            }
            let waited = self.changed.wait_timeout(seat, left);
            (seat, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The body of the thread: one server after the other, until it is to leave.
    pub fn serve(&self) {
        let mut seat = self.lock();
        loop {
            let order = self.orders.standing();
            let Some(mut task) = seat.task.take_if(|task| task.concerns(order)) else {
                if seat.leaving {
                    return;
                }
                seat = wait(&self.changed, seat);
                continue;
            };
            seat.busy = true;
            drop(seat);
            let panics = Panics(self);
            task.obey(order, &self.orders);
            std::mem::forget(panics);
            seat = self.lock();
            (seat.task, seat.busy) = (Some(task), false);
            self.changed.notify_all();
        }
    }
}

/// Whoever waits for the end of a server must not wait for ever if it panics.
struct Panics<'a, S: Server>(&'a Desk<S>);

impl<S: Server> Drop for Panics<'_, S> {
    fn drop(&mut self) {
        self.0.lock().busy = false;
        self.0.changed.notify_all();
    }
}
