//! The thread of a queue pair: both directions in turn, in batches, and asleep when neither can go on.

use super::control::Control;
use super::port::Port;
use super::receive::Receiver;
use super::stats::{Shared, count};
use super::transmit::Transmitter;
use crate::devices::virtio::{Broken, Drained, Orders, Server, Virtqueue};
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

impl From<Drained<Wait>> for Wait {
    fn from(drained: Drained<Wait>) -> Self {
        match drained {
            Drained::Empty => Wait::Queue,
            Drained::Portion => Wait::Again,
            Drained::Waits(wait) => wait,
        }
    }
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

    pub fn is_active(&self) -> bool {
        *self.active()
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
}

/// What each part waits for.
struct Waits {
    receive: Wait,
    transmit: Wait,
    control: Wait,
}

impl Server for Pair {
    type Failure = Broken;

    fn serve(&mut self, orders: &Orders) -> Result<(), Broken> {
        while orders.are_to_work() {
            let waits = self.turn()?;
            self.wait(orders, &waits);
        }
        Ok(())
    }
}

impl Pair {
    /// Its queues, and the frame that waits for the guest's buffers or for its tokens, with its header.
    pub fn give_back(self) -> (impl Iterator<Item = Virtqueue>, Option<Vec<u8>>) {
        let (receive, frame) = self.receiver.map(Receiver::give_back).unzip();
        let transmit = self.transmitter.map(Transmitter::into_queue);
        let control = self.control.map(Control::into_queue);
        let queues = [receive, transmit, control];
        (queues.into_iter().flatten(), frame.flatten())
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

    /// Waits until there is something to do.
    fn wait(&self, orders: &Orders, waits: &Waits) {
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
        count(&self.shared.notifications, polled.wait(timeout));
    }
}

/// Descriptors to poll.
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

    /// Returns how many notifications have come.
    fn wait(mut self, timeout: Option<Duration>) -> u64 {
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
        notifications
    }
}
