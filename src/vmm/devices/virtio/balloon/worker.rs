//! The thread of a balloon: all its queues in turn, and asleep when none has anything.

use super::feature;
use super::handle::{Shared, count};
use super::pages::{self, NUMBER_BYTES, PORTION};
use super::statistics::{BUFFER_BYTES, GuestStatistics};
use crate::devices::virtio::{Activation, Broken, Chain, Interrupt, Orders, Virtqueue};
use crate::memory::{GuestRam, PAGE_BYTES};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

/// Requests of one queue before another has its turn.
const BATCH: usize = 16;

/// Why the worker does not go on with a queue now.
enum Halt {
    /// The driver broke the rules.
    Broken(Broken),
    /// The device is being reset.
    Stopped,
}

impl<E: Into<Broken>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

/// The queues with all that their thread needs to serve them.
pub(super) struct Server {
    inflate: Option<Virtqueue>,
    deflate: Option<Virtqueue>,
    statistics: Option<Virtqueue>,
    reports: Option<Virtqueue>,
    /// The statistics buffer, which is the device's until it wants new ones (§5.5.6.3).
    held: Option<u16>,
    shared: Arc<Shared>,
    interrupt: Arc<Interrupt>,
}

impl Server {
    /// Beyond inflate and deflate, a queue is known by its place among those that the driver has set up: that
    /// is right for drivers that keep to the numbers of §5.5.2 and for Linux, which closes the gaps that
    /// features leave which are not negotiated (drivers/virtio/virtio_mmio.c, `vm_find_vqs`).
    pub fn new(activation: Activation, shared: Arc<Shared>) -> Self {
        let Activation {
            features,
            queues,
            interrupt,
        } = activation;
        let mut queues = queues.into_iter();
        let (inflate, deflate) = (queues.next().flatten(), queues.next().flatten());
        let mut further = queues.flatten();
        let mut of = |feature| (features & feature != 0).then(|| further.next()).flatten();
        Self {
            inflate,
            deflate,
            statistics: of(feature::STATS_VQ),
            reports: of(feature::PAGE_REPORTING),
            held: None,
            shared,
            interrupt,
        }
    }

    /// Serves until told to stop, or until the driver breaks the rules.
    pub fn serve(mut self, orders: &Orders) {
        let mut chain = Chain::default();
        self.shared.board.set_open(self.statistics.is_some());
        loop {
            match self.turn(&mut chain, orders) {
                Ok(more) if self.sleep(orders, more) => break,
                Ok(_) => {}
                Err(Halt::Stopped) => break,
                Err(Halt::Broken(why)) => {
                    self.interrupt.needs_reset(&why);
                    break;
                }
            }
        }
        self.shared.board.set_open(false);
    }

    /// Serves a batch of each queue; true if there may be more.
    fn turn(&mut self, chain: &mut Chain, orders: &Orders) -> Result<bool, Halt> {
        let shared = &self.shared;
        let mut more = false;
        if let Some(queue) = &mut self.inflate {
            more |= answer(queue, chain, |ram, chain| {
                inflate(shared, ram, chain, orders)
            })?;
        }
        if let Some(queue) = &mut self.deflate {
            more |= answer(queue, chain, |_, chain| {
                let pages = page_numbers(chain)? / NUMBER_BYTES as u64;
                count(&shared.counters.deflated_bytes, pages * PAGE_BYTES);
                Ok(())
            })?;
        }
        if let Some(queue) = &mut self.reports {
            more |= answer(queue, chain, |ram, chain| {
                report(shared, ram, chain, orders)
            })?;
        }
        Ok(more | self.exchange_statistics(chain)?)
    }

    /// Keeps the driver's buffer, and hands it back for it to be filled anew when somebody asks.
    fn exchange_statistics(&mut self, chain: &mut Chain) -> Result<bool, Broken> {
        let Some(queue) = &mut self.statistics else {
            return Ok(false);
        };
        if self.held.is_none() {
            if !queue.pop(chain)? {
                return queue.unmute();
            }
            let mut bytes = [0; BUFFER_BYTES];
            let read = chain.read(queue.memory(), 0, &mut bytes)?;
            self.shared
                .board
                .answer(GuestStatistics::parse(&bytes[..read]));
            self.held = Some(chain.head());
        }
        if !self.shared.board.take_question() {
            return Ok(false);
        }
        if let Some(head) = self.held.take() {
            queue.push(head, 0)?;
            queue.signal()?;
        }
        Ok(true)
    }

    /// Waits until there is something to do; true if that is to end.
    fn sleep(&self, orders: &Orders, more: bool) -> bool {
        // While the buffer of statistics is held, no other can be of use.
        let statistics = self.statistics.as_ref().filter(|_| self.held.is_none());
        let queues = [&self.inflate, &self.deflate, &self.reports];
        let queues = queues.into_iter().flatten().chain(statistics);
        let events: Vec<&EventFd> = queues
            .map(Virtqueue::notified)
            .chain([&self.shared.asked])
            .collect();
        let mut fds = vec![PollFd::from_borrowed_fd(orders.as_fd(), PollFlags::IN)];
        fds.extend(events.iter().map(|event| {
            // SAFETY: the descriptor belongs to the event, which is borrowed for as long.
            let fd = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
            PollFd::from_borrowed_fd(fd, PollFlags::IN)
        }));
        // With work left this only looks whether to stop. Interrupted or not: what is readable decides.
        let _ = poll(&mut fds, more.then_some(&Timespec::default()));
        for (event, fd) in events.iter().zip(&fds[1..]) {
            if !fd.revents().is_empty() {
                let _ = event.read();
            }
        }
        !fds[0].revents().is_empty() && orders.obey()
    }
}

/// Answers what there is, up to a batch; true if there may be more.
fn answer(
    queue: &mut Virtqueue,
    chain: &mut Chain,
    mut serve: impl FnMut(&GuestRam, &Chain) -> Result<(), Halt>,
) -> Result<bool, Halt> {
    for _ in 0..BATCH {
        if !queue.pop(chain)? {
            queue.signal()?;
            return Ok(queue.unmute()?);
        }
        serve(queue.ram(), chain)?;
        queue.push(chain.head(), 0)?;
    }
    queue.signal()?;
    Ok(true)
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
/// it is worked on in portions, between which the device can be reset or stand
/// still.
fn inflate(shared: &Shared, ram: &GuestRam, chain: &Chain, orders: &Orders) -> Result<(), Halt> {
    let bytes = page_numbers(chain)?;
    let (mut buffer, mut list) = ([0; PORTION * NUMBER_BYTES], Vec::new());
    let mut offset = 0;
    while offset < bytes {
        if offset > 0 && orders.obey() {
            return Err(Halt::Stopped);
        }
        let read = chain.read(ram, offset, &mut buffer)?;
        offset += read as u64;
        let refused = pages::read(&buffer[..read], ram, &mut list);
        count(&shared.counters.refused_pages, refused);
        for run in pages::runs(&mut list) {
            let start = GuestAddress(run.start * PAGE_BYTES);
            let given = ram.give_back(start, (run.end - run.start) * PAGE_BYTES);
            tally(shared, &shared.counters.inflated_bytes, given);
        }
    }
    Ok(())
}

/// Gives back free memory, each piece of it a descriptor's (§5.5.6.7).
fn report(shared: &Shared, ram: &GuestRam, chain: &Chain, orders: &Orders) -> Result<(), Halt> {
    if !chain.readable().is_empty() {
        return Err(Broken::Request("it reports memory that the device must not write").into());
    }
    for segment in chain.writable() {
        let given = ram.give_back(segment.address, segment.bytes.into());
        tally(shared, &shared.counters.reported_bytes, given);
        if orders.obey() {
            return Err(Halt::Stopped);
        }
    }
    Ok(())
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
