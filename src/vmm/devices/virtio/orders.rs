//! What a device's thread is told.

use kvmlet_sys::event::Event;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// What a server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// Serve.
    Work,
    /// Stand still: nothing of guest memory changes before the next order.
    Pause,
    /// Bring to its end what is in flight, and begin nothing.
    Sleep,
    /// End at once.
    Halt,
}

impl Order {
    const ALL: [Self; 4] = [Self::Work, Self::Pause, Self::Sleep, Self::Halt];
}

/// How long whoever has given an order waits until it is obeyed.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until then, at the most: on a busy host a thread may wait some hundred milliseconds for its turn.
    pub until: Instant,
    /// No longer than this for a thread that has had its turn, and waits for the host.
    pub host: Duration,
}

impl Patience {
    /// As long whatever the thread waits for.
    pub fn of(long: Duration) -> Self {
        Self {
            until: Instant::now() + long,
            host: long,
        }
    }
}

struct Call {
    order: AtomicU8,
    /// The thread waits for the host's kernel.
    with_host: AtomicBool,
    /// Readable while the order is another than to work.
    event: Event,
}

/// The order that stands. Its descriptor is readable while that is another than to work.
#[derive(Clone)]
pub struct Orders(Arc<Call>);

impl Orders {
    /// An order to work.
    ///
    /// # Errors
    /// When the host gives no event.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Call {
            order: AtomicU8::new(Order::Work as u8),
            with_host: AtomicBool::new(false),
            event: Event::new()?,
        })))
    }

    /// The order that stands.
    pub fn standing(&self) -> Order {
        Order::ALL[usize::from(self.0.order.load(Ordering::Acquire))]
    }

    /// Whether it is to work.
    pub fn are_to_work(&self) -> bool {
        self.standing() == Order::Work
    }

    /// Does something that the host's kernel may take any time for, which whoever waits for the thread can see.
    pub fn with_host<T>(&self, act: impl FnOnce() -> T) -> T {
        self.0.with_host.store(true, Ordering::Relaxed);
        let done = act();
        self.0.with_host.store(false, Ordering::Relaxed);
        done
    }

    /// Whether the thread waits for the host's kernel.
    pub(super) fn are_with_host(&self) -> bool {
        self.0.with_host.load(Ordering::Relaxed)
    }

    /// Changes the order. One thread at a time.
    pub(super) fn give(&self, order: Order) {
        let before = self.standing();
        self.0.order.store(order as u8, Ordering::Release);
        match (before == Order::Work, order == Order::Work) {
            (true, false) => self.0.event.signal(),
            (false, true) => drop(self.0.event.take()),
            _ => {}
        }
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
