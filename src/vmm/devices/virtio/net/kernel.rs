//! A queue pair that the host's kernel serves (vhost-net), frames and interrupts: the thread of the pair hands it over, takes
//! it back when the device is to stand still, and serves the control queue meanwhile.
//!
//! The kernel interrupts the driver without a way through this process: by the event of the line, or of the vector, that KVM
//! has. Where there is none, it wakes the thread, which does that.

use super::control::Control;
use super::lane::Lane;
use super::stats::{Shared, count};
use super::step::Wait;
use crate::devices::virtio::{Broken, Orders, QueueState, Server, Virtqueue};
use crate::memory::GuestRam;
use kvmlet_sys::event::Event;
use kvmlet_sys::vhost::{DEVICE, Purpose, Region, Vhost, VhostNet};
use kvmlet_sys::wait::{self, Slot, Until};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

/// What it must know of virtio: VERSION_1, EVENT_IDX, INDIRECT_DESC and MRG_RXBUF. All that are offered beside concern
/// frames, which are the tap's.
const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 28 | super::feature::MRG_RXBUF;

/// Why the host's kernel cannot serve an interface.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// Its device cannot be opened.
    #[error("cannot open {DEVICE}, by which the host's kernel is asked to serve an interface")]
    Open(#[source] io::Error),
    /// It is older than virtio 1.
    #[error("{DEVICE} does not know what this interface's driver may ask for ({0:#x})")]
    Features(u64),
    /// Frames go another way.
    #[error("the host's kernel serves interfaces with a tap, without metadata, and no others")]
    Port,
    /// The host gives no events.
    #[error("the host cannot give events for an interface")]
    Events(#[source] io::Error),
}

/// The kernel, and the events by which it tells of each queue.
pub(super) struct Kernel {
    vhost: Box<dyn Vhost>,
    calls: [Event; 2],
    errors: [Event; 2],
}

impl Kernel {
    /// Asks the host's for one pair.
    pub fn open() -> Result<Self, Unusable> {
        let vhost = VhostNet::open().map_err(Unusable::Open)?;
        let missing = FEATURES & !vhost.features().map_err(Unusable::Open)?;
        match missing {
            0 => Self::new(Box::new(vhost)).map_err(Unusable::Events),
            missing => Err(Unusable::Features(missing)),
        }
    }

    pub fn new(vhost: Box<dyn Vhost>) -> io::Result<Self> {
        Ok(Self {
            vhost,
            calls: [Event::new()?, Event::new()?],
            errors: [Event::new()?, Event::new()?],
        })
    }
}

/// Why a pair cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Of the control queue.
    #[error(transparent)]
    Driver(#[from] Broken),
    /// The kernel says no more than that.
    #[error("the host's kernel cannot make sense of queue {0}")]
    Ring(u16),
    /// The kernel refuses.
    #[error("the host's kernel does not serve its queues: {0}")]
    Refused(#[from] io::Error),
}

/// A queue, as this process knows it.
struct Part {
    queue: Virtqueue,
    /// The kernel has it.
    lent: bool,
}

/// A pair, and how it is served.
pub(super) struct KernelPair {
    pub lanes: Arc<[Lane]>,
    pub index: usize,
    pub control: Option<Control>,
    pub shared: Arc<Shared>,
    kernel: Arc<Kernel>,
    features: u64,
    /// Towards the guest, and from it.
    parts: [Option<Part>; 2],
}

impl KernelPair {
    pub fn new(
        kernel: Arc<Kernel>,
        features: u64,
        queues: [Option<Virtqueue>; 2],
        (lanes, index): (Arc<[Lane]>, usize),
        control: Option<Control>,
        shared: Arc<Shared>,
    ) -> Self {
        let part = |queue| Part { queue, lent: false };
        Self {
            lanes,
            index,
            control,
            shared,
            kernel,
            features: features & FEATURES,
            parts: queues.map(|queue| queue.map(part)),
        }
    }

    pub fn give_back(self) -> Vec<Virtqueue> {
        let parts = self.parts.into_iter().flatten();
        let control = self.control.map(Control::into_queue);
        parts.map(|part| part.queue).chain(control).collect()
    }

    pub fn look(&self) -> Vec<(u16, QueueState)> {
        let parts = self.parts.iter().flatten().map(|part| &part.queue);
        let queues = parts.chain(self.control.as_ref().map(Control::queue));
        queues
            .map(|queue| (queue.number(), queue.state()))
            .collect()
    }

    /// Hands all queues over.
    fn begin(&mut self) -> io::Result<()> {
        let Kernel {
            vhost,
            calls,
            errors,
        } = &*self.kernel;
        let Some(first) = self.parts.iter().flatten().next() else {
            return Ok(());
        };
        let regions = regions(first.queue.memory());
        // SAFETY: guest memory is mapped as long as queues are here, which come back before they go.
        unsafe { vhost.prepare(self.features, &regions) }?;
        let port = &self.lanes[self.index].port;
        for (number, part) in (0_u32..).zip(&mut self.parts) {
            let Some(part) = part else { continue };
            let (call, error) = (&calls[number as usize], &errors[number as usize]);
            // Of an earlier driver's queue.
            error.take();
            let queue = &part.queue;
            // SAFETY: as above; what is shared with a guest is accessed by single words here.
            unsafe { vhost.set_ring(number, &queue.ring()) }?;
            vhost.set_event(number, Purpose::Kick, queue.notified())?;
            vhost.set_event(number, Purpose::Error, error)?;
            let mut take = |event: &Event| vhost.set_event(number, Purpose::Call, event);
            if !queue.interrupt().lend(queue.number(), &mut take)? {
                take(call)?;
            }
            vhost.begin(number, port.as_fd())?;
            part.lent = true;
            // What was asked for before may have been told to nobody else.
            queue.notified().signal();
        }
        Ok(())
    }

    /// Takes back what was handed over: nothing of it is in flight any more.
    fn end(&mut self) -> io::Result<()> {
        let mut ended = Ok(());
        for (number, part) in (0_u32..).zip(&mut self.parts) {
            let Some(part) = part.as_mut().filter(|part| part.lent) else {
                continue;
            };
            match self.kernel.vhost.end(number) {
                Ok(next) => {
                    part.queue.served_up_to(next);
                    part.lent = false;
                }
                Err(error) => ended = Err(error),
            }
        }
        self.pass_on();
        ended
    }

    /// Tells the driver what the kernel has told this thread.
    fn pass_on(&self) {
        for (call, part) in self.kernel.calls.iter().zip(&self.parts) {
            if let Some(part) = part
                && call.take() > 0
            {
                part.queue.interrupt().used_buffers(part.queue.number());
            }
        }
    }

    /// Sees to what the kernel does not do, while it serves.
    fn attend(&mut self, orders: &Orders) -> Result<(), Failure> {
        let kernel = self.kernel.clone();
        while orders.are_to_work() {
            let control = match &mut self.control {
                Some(control) => control.run()?,
                None => Wait::Nothing,
            };
            let asked = self.control.as_ref().map(|it| it.queue().notified());
            let asked = asked.filter(|_| control == Wait::Queue);
            let until = match control {
                Wait::Again => Until::Now,
                _ => Until::Forever,
            };
            let [a, b] = &kernel.calls;
            let [c, d] = &kernel.errors;
            let [a, b, c, d] = [a, b, c, d].map(|event| Slot::readable(event.as_fd()));
            let asked = asked.map_or(Slot::NOTHING, |event| Slot::readable(event.as_fd()));
            let slots = [Slot::readable(orders.as_fd()), asked, a, b, c, d];
            let [_, asked, a, b, errors @ ..] = wait::any(slots, until).unwrap_or_default();
            if asked && let Some(control) = &self.control {
                count(
                    &self.shared.notifications,
                    control.queue().notified().take(),
                );
            }
            if a || b {
                self.pass_on();
            }
            let mut wrong = self.parts.iter().zip(errors).filter(|(_, wrong)| *wrong);
            if let Some((Some(part), _)) = wrong.next() {
                return Err(Failure::Ring(part.queue.number()));
            }
        }
        Ok(())
    }
}

impl Server for KernelPair {
    type Failure = Failure;

    fn serve(&mut self, orders: &Orders) -> Result<(), Failure> {
        let served = self.begin().map_err(Failure::Refused);
        let served = served.and_then(|()| self.attend(orders));
        let ended = self.end().map_err(Failure::Refused);
        served.and(ended)
    }
}

fn regions(ram: &GuestRam) -> Vec<Region> {
    let region = |it: &vm_memory::GuestRegionMmap| Region {
        guest: it.start_addr().0,
        bytes: it.len(),
        host: it.as_ptr() as u64,
        flags: 0,
    };
    ram.iter().map(region).collect()
}
