//! The thread of a queue pair: both directions in turn, in batches, and asleep when neither can go on.

use super::control::Control;
use super::port::Port;
use super::receive::Receiver;
use super::stats::{Shared, count};
use super::transmit::Transmitter;
use crate::devices::virtio::{Broken, Interrupt, Orders};
use kvmlet_sys::thread::lock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// Frames of one direction before the other has its turn.
pub(super) const BATCH: usize = 64;

/// What must happen before one direction can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing: there is more to do.
    Again,
    /// The driver makes buffers available.
    Queue,
    /// The port can be read or written.
    Port,
    /// The rate limit allows more.
    Timer,
    /// The driver switches the queue pair on.
    Nothing,
}

/// What the control queue and a queue pair's worker share.
pub(super) struct Lane {
    pub port: Arc<dyn Port>,
    /// Held while frames are received, so that none comes after the driver was told that none will.
    active: Mutex<bool>,
    /// Tells the worker of a change.
    changed: EventFd,
}

impl Lane {
    pub fn new(port: Arc<dyn Port>) -> io::Result<Self> {
        Ok(Self {
            port,
            active: Mutex::new(false),
            changed: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
        })
    }

    fn active(&self) -> MutexGuard<'_, bool> {
        lock(&self.active)
    }

    pub fn set_active(&self, active: bool) -> io::Result<()> {
        let mut current = self.active();
        if *current != active {
            self.port.attach(active)?;
            *current = active;
            self.changed.write(1)?;
        }
        Ok(())
    }
}

/// What one thread serves; a driver may leave out any queue.
pub(super) struct Pair {
    pub lanes: Arc<[Lane]>,
    pub index: usize,
    pub receiver: Option<Receiver>,
    pub transmitter: Option<Transmitter>,
    pub control: Option<Control>,
    pub shared: Arc<Shared>,
    pub interrupt: Arc<Interrupt>,
}

/// What each part waits for.
struct Waits {
    receive: Wait,
    transmit: Wait,
    control: Wait,
}

impl Pair {
    /// Serves the queues until it is told to stop or one of them is broken.
    pub fn serve(mut self, orders: &Orders) {
        loop {
            match self.turn() {
                Ok(waits) => {
                    if self.sleep(orders, &waits) {
                        return;
                    }
                }
                Err(why) => return self.interrupt.needs_reset(&why),
            }
        }
    }

    fn lane(&self) -> &Lane {
        &self.lanes[self.index]
    }

    fn turn(&mut self) -> Result<Waits, Broken> {
        let control = match &mut self.control {
            Some(control) => control.run()?,
            None => Wait::Nothing,
        };
        let receive = match &mut self.receiver {
            Some(receiver) => {
                let active = self.lanes[self.index].active();
                if *active {
                    receiver.run()?
                } else {
                    receiver.forget();
                    Wait::Nothing
                }
            }
            None => Wait::Nothing,
        };
        let transmit = match &mut self.transmitter {
            Some(transmitter) => transmitter.run()?,
            None => Wait::Nothing,
        };
        Ok(Waits {
            receive,
            transmit,
            control,
        })
    }

    /// Waits until there is something to do; true if that is to end.
    fn sleep(&self, orders: &Orders, waits: &Waits) -> bool {
        let mut polled = Polled::default();
        polled.add(orders.as_fd(), PollFlags::IN);
        polled.add_event(&self.lane().changed, false);
        let mut port = PollFlags::empty();
        let mut timeout = None;
        if let Some(receiver) = &self.receiver {
            match waits.receive {
                Wait::Port => port |= PollFlags::IN,
                Wait::Timer => polled.add(receiver.timer(), PollFlags::IN),
                Wait::Queue => {
                    polled.add_event(receiver.queue().notified(), true);
                    timeout = receiver.patience();
                }
                Wait::Again | Wait::Nothing => {}
            }
        }
        if let Some(transmitter) = &self.transmitter {
            match waits.transmit {
                Wait::Port => port |= PollFlags::OUT,
                Wait::Timer => polled.add(transmitter.timer(), PollFlags::IN),
                Wait::Queue => polled.add_event(transmitter.queue().notified(), true),
                Wait::Again | Wait::Nothing => {}
            }
        }
        if let (Some(control), Wait::Queue) = (&self.control, waits.control) {
            polled.add_event(control.queue().notified(), true);
        }
        // A port that nobody waits for is left out: its errors would be reported all the time.
        if !port.is_empty() {
            polled.add(self.lane().port.as_fd(), port);
        }
        if [waits.receive, waits.transmit, waits.control].contains(&Wait::Again) {
            timeout = Some(Duration::ZERO);
        }
        let (called, notifications) = polled.wait(timeout);
        count(&self.shared.notifications, notifications);
        called && orders.obey()
    }
}

/// Descriptors to poll; the first ends the worker.
#[derive(Default)]
struct Polled<'a> {
    fds: Vec<PollFd<'a>>,
    /// Events to reset when they have come, by their place in `fds`, and whether they are notifications.
    events: Vec<(usize, &'a EventFd, bool)>,
}

impl<'a> Polled<'a> {
    fn add(&mut self, fd: BorrowedFd<'a>, flags: PollFlags) {
        self.fds.push(PollFd::from_borrowed_fd(fd, flags));
    }

    fn add_event(&mut self, event: &'a EventFd, notification: bool) {
        self.events.push((self.fds.len(), event, notification));
        // SAFETY: the descriptor belongs to the event, which is borrowed for as long.
        self.add(
            unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) },
            PollFlags::IN,
        );
    }

    /// Returns whether the first descriptor is ready, and how many notifications have come.
    fn wait(mut self, timeout: Option<Duration>) -> (bool, u64) {
        let timeout = timeout.map(|time| Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: time.subsec_nanos().into(),
        });
        // Interrupted or not: what is ready decides.
        let _ = poll(&mut self.fds, timeout.as_ref());
        let mut notifications = 0;
        for (place, event, notification) in self.events {
            if !self.fds[place].revents().is_empty() {
                let times = event.read().unwrap_or(0);
                notifications += if notification { times } else { 0 };
            }
        }
        (!self.fds[0].revents().is_empty(), notifications)
    }
}
