//! The thread of a balloon: all its queues in turn, and asleep when none has anything.

use super::feature;
use super::handle::{Shared, count};
use super::pages::{self, NUMBER_BYTES, PORTION};
use super::statistics::{self, BUFFER_BYTES};
use crate::devices::virtio::{Broken, Chain, Drained, Fate, Orders, QueueState, Server, Virtqueue};
use crate::memory::{GuestRam, PAGE_BYTES};
use kvmlet_sys::wait::{self, Slot, Until};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use vm_memory::GuestAddress;

/// Requests of one queue before another has its turn.
const BATCH: usize = 16;

/// There are other orders.
struct Called;

/// The queues with all that their thread needs to serve them.
pub(super) struct QueueServer {
    inflate: Option<Virtqueue>,
    deflate: Option<Virtqueue>,
    statistics: Option<Virtqueue>,
    reports: Option<Virtqueue>,
    /// The statistics buffer, which is the device's until it wants new ones (§5.5.6.3).
    held: Option<u16>,
    /// What is done of the request that comes next, in bytes of its page numbers.
    inflated: u64,
    /// What is done of the report that comes next, in pieces of memory.
    reported: usize,
    shared: Arc<Shared>,
}

impl QueueServer {
    /// Beyond inflate and deflate, a queue is known by its place among those that the driver has set up: that
    /// is right for drivers that keep to the numbers of §5.5.2 and for Linux, which closes the gaps that
    /// features leave which are not negotiated (drivers/virtio/virtio_mmio.c, `vm_find_vqs`).
    pub fn new(
        features: u64,
        queues: Vec<Option<Virtqueue>>,
        held: Option<u16>,
        shared: Arc<Shared>,
    ) -> Self {
        let mut queues = queues.into_iter();
        let (inflate, deflate) = (queues.next().flatten(), queues.next().flatten());
        let mut further = queues.flatten();
        let mut of = |feature| (features & feature != 0).then(|| further.next()).flatten();
        let statistics = of(feature::STATS_VQ);
        shared.board.set_open(statistics.is_some());
        Self {
            inflate,
            deflate,
            statistics,
            reports: of(feature::PAGE_REPORTING),
            held,
            inflated: 0,
            reported: 0,
            shared,
        }
    }

    /// What it got, for another to go on with.
    pub fn give_back(self) -> (impl Iterator<Item = Virtqueue>, Option<u16>) {
        self.shared.board.set_open(false);
        let queues = [self.inflate, self.deflate, self.statistics, self.reports];
        (queues.into_iter().flatten(), self.held)
    }

    /// What it would [give back](Self::give_back): how far its queues have come, by their numbers, and what it holds.
    pub fn look(&self) -> (Vec<(u16, QueueState)>, Option<u16>) {
        let queues = [
            &self.inflate,
            &self.deflate,
            &self.statistics,
            &self.reports,
        ];
        let queues = queues.into_iter().flatten();
        let states = queues.map(|queue| (queue.number(), queue.state()));
        (states.collect(), self.held)
    }

    /// Serves a batch of each queue; true if there may be more.
    fn turn(&mut self, orders: &Orders) -> Result<bool, Broken> {
        let Self {
            shared,
            inflated,
            reported,
            ..
        } = self;
        let mut more = false;
        if let Some(queue) = &mut self.inflate {
            more |= answer(queue, |queue, chain| {
                inflate(shared, queue.memory(), chain, inflated, orders)
            })?;
        }
        if let Some(queue) = &mut self.deflate {
            more |= answer(queue, |_, chain| {
                let pages = page_numbers(chain)? / NUMBER_BYTES as u64;
                count(&shared.counters.deflated_bytes, pages * PAGE_BYTES);
                Ok(Fate::Answered(0))
            })?;
        }
        if let Some(queue) = &mut self.reports {
            more |= answer(queue, |queue, chain| {
                report(shared, queue.memory(), chain, reported, orders)
            })?;
        }
        Ok(more | self.exchange_statistics()?)
    }

    /// Keeps the driver's buffer, and hands it back for it to be filled anew when somebody asks.
    fn exchange_statistics(&mut self) -> Result<bool, Broken> {
        let Some(queue) = &mut self.statistics else {
            return Ok(false);
        };
        if self.held.is_none() {
            let (held, board) = (&mut self.held, &self.shared.board);
            let drained = queue.drain(1, |queue, chain| {
                let mut bytes = [0; BUFFER_BYTES];
                let read = chain.read(queue.memory(), 0, &mut bytes)?;
                board.answer(statistics::parse(&bytes[..read]));
                *held = Some(chain.head());
                Ok::<_, Broken>(Fate::KeptLast(()))
            })?;
            if self.held.is_none() {
                return Ok(drained != Drained::Empty);
            }
        }
        if !self.shared.board.take_question() {
            return Ok(false);
        }
        if let Some(head) = self.held.take() {
            queue.push(head, 0);
            queue.signal();
        }
        Ok(true)
    }

    /// Waits until there is something to do.
    fn wait(&self, orders: &Orders, more: bool) {
        // While the buffer of statistics is held, no other can be of use.
        let statistics = self.statistics.as_ref().filter(|_| self.held.is_none());
        let queues = [
            self.inflate.as_ref(),
            self.deflate.as_ref(),
            self.reports.as_ref(),
            statistics,
        ];
        let mut events = [Some(&self.shared.asked); 5];
        for (event, queue) in events.iter_mut().zip(queues) {
            *event = queue.map(Virtqueue::notified);
        }
        let mut slots = [Slot::readable(orders.as_fd()); 6];
        for (slot, event) in slots[1..].iter_mut().zip(events) {
            *slot = event.map_or(Slot::NOTHING, |event| Slot::readable(event.as_fd()));
        }
        // With work left this only looks what has come.
        let until = if more { Until::Now } else { Until::Forever };
        let [_, come @ ..] = wait::any(slots, until).unwrap_or_default();
        for (event, come) in events.into_iter().zip(come) {
            if let (Some(event), true) = (event, come) {
                event.take();
            }
        }
    }
}

impl Server for QueueServer {
    type Failure = Broken;

    fn serve(&mut self, orders: &Orders) -> Result<(), Broken> {
        while orders.are_to_work() {
            let more = self.turn(orders)?;
            self.wait(orders, more);
        }
        Ok(())
    }

    /// Whoever waits for statistics waits in vain.
    fn abandon(&mut self) {
        self.shared.board.set_open(false);
    }
}

/// Answers what there is, up to a batch; true if there may be more.
fn answer(
    queue: &mut Virtqueue,
    serve: impl FnMut(&Virtqueue, &Chain) -> Result<Fate<Called>, Broken>,
) -> Result<bool, Broken> {
    let drained = queue.drain(BATCH, serve)?;
    Ok(!matches!(drained, Drained::Empty))
}

/// The size of a request that is made of page numbers, in bytes.
fn page_numbers(chain: &Chain) -> Result<u64, Broken> {
    let bytes = chain.readable_bytes();
    match chain.writable().is_empty() && bytes.is_multiple_of(NUMBER_BYTES as u64) {
        true => Ok(bytes),
        false => Err(Broken::Request("it is not a list of page numbers")),
    }
}

/// Gives back the pages that the driver has put into the balloon. A request may name as many as it likes, so
/// it is worked on in portions, between which there may be other orders: `done` is how far it has come.
fn inflate(
    shared: &Shared,
    ram: &GuestRam,
    chain: &Chain,
    done: &mut u64,
    orders: &Orders,
) -> Result<Fate<Called>, Broken> {
    let bytes = page_numbers(chain)?;
    let (mut buffer, mut list) = ([0; PORTION * NUMBER_BYTES], Vec::new());
    while *done < bytes {
        if *done > 0 && !orders.are_to_work() {
            return Ok(Fate::PutBack(Called));
        }
        let read = chain.read(ram, *done, &mut buffer)?;
        *done += read as u64;
        let refused = pages::read(&buffer[..read], ram, &mut list);
        count(&shared.counters.refused_pages, refused);
        for run in pages::runs(&mut list) {
            let start = GuestAddress(run.start * PAGE_BYTES);
            let given = ram.give_back(start, (run.end - run.start) * PAGE_BYTES);
            tally(shared, &shared.counters.inflated_bytes, given);
        }
    }
    *done = 0;
    Ok(Fate::Answered(0))
}

/// Gives back free memory, each piece of it a descriptor's (§5.5.6.7): `done` of them are.
fn report(
    shared: &Shared,
    ram: &GuestRam,
    chain: &Chain,
    done: &mut usize,
    orders: &Orders,
) -> Result<Fate<Called>, Broken> {
    if !chain.readable().is_empty() {
        return Err(Broken::Request(
            "it reports memory that the device must not write",
        ));
    }
    for segment in chain.writable().iter().skip(*done) {
        if *done > 0 && !orders.are_to_work() {
            return Ok(Fate::PutBack(Called));
        }
        let given = ram.give_back(segment.address, segment.bytes.into());
        tally(shared, &shared.counters.reported_bytes, given);
        *done += 1;
    }
    *done = 0;
    Ok(Fate::Answered(0))
}

fn tally(shared: &Shared, counter: &AtomicU64, given: io::Result<u64>) {
    match given {
        Ok(bytes) => count(counter, bytes),
        Err(error) => {
            if let Some(interrupt) = shared.interrupt.get() {
                interrupt.complain(format_args!("the host does not take memory back: {error}"));
            }
        }
    }
}
