//! Where a device's thread meets whoever directs it: work, orders, and what has become of them.

use kvmlet_sys::thread::{lock, wait};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use vmm_sys_util::eventfd::EventFd;

/// What a worker's work is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Work,
    /// Stand still: nothing of guest memory changes before the next order.
    Sleep,
    /// End.
    Halt,
}

pub(super) type Work = Box<dyn FnOnce(&Orders) + Send>;

/// What a worker's thread is about.
enum Place {
    Parked,
    Given(Work),
    Busy,
    Asleep,
}

struct Seat {
    place: Place,
    order: Order,
    /// The thread is to end.
    leaving: bool,
}

/// Where a worker and its thread meet.
pub(super) struct Desk {
    seat: Mutex<Seat>,
    changed: Condvar,
    /// Readable while the order is another than to work.
    call: EventFd,
}

impl Desk {
    /// One without work.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            seat: Mutex::new(Seat {
                place: Place::Parked,
                order: Order::Work,
                leaving: false,
            }),
            changed: Condvar::new(),
            call: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
        })
    }

    /// Gives the thread work, and has it begin.
    pub fn give(&self, work: Work) {
        let mut seat = self.lock();
        seat.place = Place::Given(work);
        self.order(&mut seat, Order::Work);
        self.changed.notify_all();
    }

    /// Tells the work to end; returns whether there is any that is to notice.
    pub fn call_off(&self) -> bool {
        let mut seat = self.lock();
        if matches!(seat.place, Place::Given(_)) {
            seat.place = Place::Parked;
        }
        let works = !matches!(seat.place, Place::Parked);
        if works {
            self.order(&mut seat, Order::Halt);
        }
        works
    }

    /// Tells the work to stand still.
    pub fn sleep(&self) {
        let mut seat = self.lock();
        if seat.order == Order::Work {
            self.order(&mut seat, Order::Sleep);
        }
    }

    /// Has work go on that stood still.
    pub fn wake(&self) {
        let mut seat = self.lock();
        if seat.order == Order::Sleep {
            self.order(&mut seat, Order::Work);
        }
    }

    /// Has the thread end when its work has.
    pub fn leave(&self) {
        self.lock().leaving = true;
        self.changed.notify_all();
    }

    /// Waits until the thread has no work, but no longer than until then; returns whether it has none.
    pub fn is_parked(&self, deadline: Instant) -> bool {
        self.wait_until(deadline, |seat| matches!(seat.place, Place::Parked))
    }

    /// Waits until the work stands still, but no longer than until then; returns whether it does.
    pub fn is_still(&self, deadline: Instant) -> bool {
        self.wait_until(deadline, |seat| !matches!(seat.place, Place::Busy))
    }

    fn lock(&self) -> MutexGuard<'_, Seat> {
        lock(&self.seat)
    }

    /// Changes the order; the seat is the caller's.
    fn order(&self, seat: &mut Seat, order: Order) {
        if seat.order == order {
            return;
        }
        // Neither can fail: the counter is far from full, and empty only where nothing was written.
        let _ = match order {
            Order::Work => self.call.read().map(drop),
            _ => self.call.write(1),
        };
        seat.order = order;
        self.changed.notify_all();
    }

    /// Waits until `is_so`, or until the deadline; returns whether it is.
    fn wait_until(&self, deadline: Instant, is_so: impl Fn(&Seat) -> bool) -> bool {
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

    /// The body of the thread: one work after the other, until it is to leave.
    pub fn serve(self: &Arc<Self>) {
        /// Parks the thread even if its work panics: whoever waits for its end must not wait for ever.
        struct Park<'a>(&'a Desk);
        impl Drop for Park<'_> {
            fn drop(&mut self) {
                let mut seat = self.0.lock();
                if matches!(seat.place, Place::Busy | Place::Asleep) {
                    seat.place = Place::Parked;
                }
                self.0.changed.notify_all();
            }
        }
        let orders = Orders(self.clone());
        loop {
            let mut seat = self.lock();
            let work = loop {
                if seat.leaving {
                    return;
                }
                match std::mem::replace(&mut seat.place, Place::Busy) {
                    Place::Given(work) if seat.order == Order::Work => break work,
                    other => seat.place = other,
                }
                seat = wait(&self.changed, seat);
            };
            drop(seat);
            let _park = Park(self);
            work(&orders);
        }
    }
}

/// What the work of a worker is told. Its descriptor is readable while there is an order to [obey](Self::obey).
#[derive(Clone)]
pub struct Orders(Arc<Desk>);

impl Orders {
    /// The order that stands.
    pub fn standing(&self) -> Order {
        self.0.lock().order
    }

    /// Stands still as long as it is told to, and returns whether the work is to end.
    pub fn obey(&self) -> bool {
        let mut seat = self.0.lock();
        while seat.order == Order::Sleep {
            seat.place = Place::Asleep;
            self.0.changed.notify_all();
            seat = wait(&self.0.changed, seat);
        }
        if matches!(seat.place, Place::Asleep) {
            seat.place = Place::Busy;
        }
        seat.order == Order::Halt
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is owned by `self.0`, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.0.call.as_raw_fd()) }
    }
}
