//! The thread that serves one queue.

use super::backend::{Medium, Shelf};
use super::buffers::LOT_BYTES;
use super::flight::Flight;
use super::handle::{Shared, count};
use super::request::{Command, Request, Status};
use crate::devices::virtio::rate_limiter::{Gate, Take};
use crate::devices::virtio::{
    Broken, Drained, Fate, Order, Orders, Polling, QueueState, Server, Virtqueue,
};
use kvmlet_sys::wait::{self, Slot, Until};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a worker that is to stand still waits for the kernel before it looks whether it still is.
const SLEEPER_LOOKS: Duration = Duration::from_millis(5);

/// Why a worker ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Driver(#[from] Broken),
    #[error("the host's I/O failed: {0}")]
    Backend(#[from] io::Error),
}

/// What keeps a worker from taking more requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// There are none.
    Empty,
    /// As many are in flight as the queue has entries, or as much as may be.
    Full,
    /// The rate limit.
    Throttled,
}

/// A queue with all that its thread needs to serve it.
pub(super) struct QueueServer {
    queue: Virtqueue,
    gate: Gate,
    flight: Flight,
    /// Answers since the driver was last told.
    unsignalled: bool,
    /// For requests where there are none.
    polling: Polling,
    /// For what the host has ended.
    awaiting: Polling,
}

impl QueueServer {
    pub fn new(
        queue: Virtqueue,
        shared: Arc<Shared>,
        medium: Arc<dyn Medium>,
        shelf: Shelf,
    ) -> io::Result<Self> {
        let memory = queue.memory().clone();
        let gate = shared.limiter.gate()?;
        let [polling, awaiting] = [(); 2].map(|()| Polling::new(shared.poll));
        let flight = Flight::new(memory, shared, medium, shelf, queue.size());
        Ok(Self {
            queue,
            gate,
            flight,
            unsignalled: false,
            polling,
            awaiting,
        })
    }

    /// The number of its queue, and how far that has come.
    pub fn state(&self) -> (u16, QueueState) {
        (self.queue.number(), self.queue.state())
    }

    pub fn into_queue(self) -> Virtqueue {
        self.queue
    }

    /// One round: take what there is, start it, answer what has ended, tell the driver once. Returns what
    /// to wait for, or `None` if there is more to be taken now.
    fn pass(&mut self, orders: &Orders) -> Result<Option<Pause>, Failure> {
        self.queue.mute();
        let pause = self.take(orders)?;
        let again = self.advance(orders)?;
        let more = match pause {
            None => true,
            Some(Pause::Empty) => again || self.finds_more(orders) || self.queue.unmute()?,
            Some(Pause::Full) => self.flight.room() > 0,
            Some(Pause::Throttled) => false,
        };
        Ok(pause.filter(|_| !more && !again))
    }

    /// Takes requests until there is a reason not to, or until it is time to look whether to stop: a driver that
    /// never ceases to ask cannot keep the disk from being reset.
    fn take(&mut self, orders: &Orders) -> Result<Option<Pause>, Failure> {
        let Self {
            queue,
            gate,
            flight,
            unsignalled,
            ..
        } = self;
        if flight.room() == 0 {
            return Ok(Some(Pause::Full));
        }
        let limits = flight.shared.limits();
        let (mut started, most) = (0, queue.size().into());
        let drained = queue.take::<_, Failure>(most, |_, chain| {
            let request = Request::parse(chain, &flight.memory, &limits)?;
            let (operations, bytes) = request.cost();
            if gate.take(operations, bytes) != Take::Ready {
                return Ok(Fate::PutBack(Some(Pause::Throttled)));
            }
            let mut answer = |status, filled| {
                *unsignalled = true;
                flight.reply(request.reply, status, filled)
            };
            match request.command {
                Err(status) => return Ok(Fate::Answered(answer(status, 0)?)),
                Ok(Command::Identify) => {
                    let written = chain.write(&flight.memory, 0, &flight.shared.identity)?;
                    return Ok(Fate::Answered(answer(Status::Ok, written as u64)?));
                }
                Ok(command) => flight.start(chain, request.reply, command, orders)?,
            }
            started += bytes;
            Ok(match flight.room() {
                0 => Fate::KeptLast(Some(Pause::Full)),
                // A back end of plain calls has done all that by now.
                _ if started >= LOT_BYTES as u64 => Fate::KeptLast(None),
                _ => Fate::Kept,
            })
        });
        Ok(match drained? {
            Drained::Empty => Some(Pause::Empty),
            Drained::Portion => None,
            Drained::Waits(pause) => pause,
        })
    }

    /// Looks for a request for as long as that pays, before the driver is asked to notify of it.
    fn finds_more(&mut self, orders: &Orders) -> bool {
        if !self.flight.is_empty() {
            return false;
        }
        let queue = &self.queue;
        let (found, took) = self
            .polling
            .look(|| queue.has_more() || !orders.are_to_work());
        count(&self.flight.shared.counters.poll_ns, took.as_nanos() as u64);
        found
    }

    /// Looks for what the host has ended for as long as that pays, before it is waited for; true if there is something to do.
    fn finds_progress(&mut self, pause: Pause, orders: &Orders) -> bool {
        let (queue, flight) = (&self.queue, &self.flight);
        let takes_more = pause == Pause::Empty;
        let (found, took) = self.awaiting.look(|| {
            flight.shows_progress() || !orders.are_to_work() || (takes_more && queue.has_more())
        });
        count(&self.flight.shared.counters.poll_ns, took.as_nanos() as u64);
        found
    }

    /// Starts what was submitted, answers what has ended, and tells the driver; true if jobs were submitted for their
    /// next operation.
    fn advance(&mut self, orders: &Orders) -> Result<bool, Failure> {
        let (queue, unsignalled) = (&mut self.queue, &mut self.unsignalled);
        let again = self.flight.advance(orders, |(head, written)| {
            *unsignalled = true;
            queue.push(head, written);
            queue.show_portion();
            Ok::<_, Failure>(())
        })?;
        if std::mem::take(&mut self.unsignalled) {
            self.queue.signal();
        }
        Ok(again)
    }

    /// Waits until there is something to do, or only looks if nothing keeps it.
    fn wait(&mut self, pause: Option<Pause>, orders: &Orders) {
        let since = pause.map(|_| Instant::now());
        if let Some(pause) = pause
            && self.flight.progress().is_some()
            && self.finds_progress(pause, orders)
        {
            return;
        }
        let notified = self.queue.notified();
        let (next, until) = match pause {
            Some(Pause::Throttled) => (Slot::readable(self.gate.timer()), Until::Forever),
            Some(Pause::Empty) => (Slot::readable(notified.as_fd()), Until::Forever),
            Some(Pause::Full) => (Slot::NOTHING, Until::Forever),
            None => (Slot::NOTHING, Until::Now),
        };
        let progress = self.flight.progress();
        let slots = [
            Slot::readable(orders.as_fd()),
            next,
            progress.map_or(Slot::NOTHING, Slot::readable),
        ];
        let [_, next, progressed] = wait::any(slots, until).unwrap_or_default();
        let Some(since) = since else {
            return;
        };
        if progressed {
            self.awaiting.slept(since.elapsed());
        }
        if next && pause == Some(Pause::Empty) {
            // How often the driver has notified since it was looked last.
            count(&self.flight.shared.counters.notifications, notified.take());
            self.polling.slept(since.elapsed());
        }
    }

    /// Brings on what is in flight while the order is that, and there is something `left`.
    fn await_flight(
        &mut self,
        orders: &Orders,
        order: Order,
        left: impl Fn(&Flight) -> bool,
    ) -> Result<(), Failure> {
        while left(&self.flight) && orders.standing() == order {
            if !self.advance(orders)? {
                self.flight.await_progress(SLEEPER_LOOKS, orders);
            }
        }
        Ok(())
    }
}

impl Server for QueueServer {
    type Failure = Failure;

    /// Before it stands still, what would change guest memory behind its back is waited for, which is a lot at the most
    /// of each request, and nothing new is begun.
    fn serve(&mut self, orders: &Orders) -> Result<(), Failure> {
        self.flight.go_on(orders);
        while orders.are_to_work() {
            let pause = self.pass(orders)?;
            self.wait(pause, orders);
        }
        self.flight.hold();
        self.await_flight(orders, Order::Pause, Flight::changes_memory)
    }

    fn finish(&mut self, orders: &Orders) -> Result<bool, Failure> {
        self.flight.go_on(orders);
        self.await_flight(orders, Order::Sleep, |flight| !flight.is_empty())?;
        let finished = self.flight.is_empty();
        if finished {
            self.flight.rest();
        }
        Ok(finished)
    }

    fn abandon(&mut self) {
        self.flight.abandon();
    }
}
