//! What a device's thread is told.

use kvmlet_sys::event::Event;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

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

struct Call {
    order: AtomicU8,
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
