//! A virtqueue in use: requests in, answers out, and the driver called when it wants to be.

use super::broken::Broken;
use super::chain::Chain;
use super::interrupt::Interrupt;
use crate::memory::{GuestMemory, GuestRam};
use kvmlet_sys::event::Event;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// VIRTQ_AVAIL_F_NO_INTERRUPT (§2.7.6): the driver does not want to be called.
const NO_INTERRUPT: u16 = 1;

/// What becomes of a request that its device has looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate<W> {
    /// It is answered, with this many bytes written to it.
    Answered(u32),
    /// It is the device's until it [pushes](Virtqueue::push) it.
    Kept,
    /// As [`Kept`](Self::Kept), and no more are taken now, for this reason.
    KeptLast(W),
    /// It is put back, to come first next time, and the device waits for this.
    PutBack(W),
}

/// Why a device takes no more requests now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained<W> {
    /// There are none, and the driver notifies of the next.
    Empty,
    /// It has had its portion, and there may be more.
    Portion,
    /// The device waits for something else.
    Waits(W),
}

/// How far a queue has come, beside what its driver has set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueState {
    /// The index of the request that comes next.
    pub next_avail: u16,
    /// The index of the answer that comes next.
    pub next_used: u16,
    /// The used index when the driver was last told of it.
    pub signalled: u16,
}

/// A queue as an active device sees it.
pub struct Virtqueue {
    number: u16,
    queue: Queue,
    /// For the next request, with its allocations.
    chain: Chain,
    memory: GuestRam,
    interrupt: Arc<Interrupt>,
    notified: Event,
    /// The used index when the driver was last told of it.
    signalled: u16,
}

impl Virtqueue {
    pub(super) fn new(
        number: u16,
        queue: Queue,
        memory: GuestRam,
        interrupt: Arc<Interrupt>,
        notified: Event,
    ) -> Self {
        Self {
            number,
            queue,
            chain: Chain::default(),
            memory,
            interrupt,
            notified,
            signalled: 0,
        }
    }

    /// Its number, by which driver and device know it.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// How far it has come.
    pub fn state(&self) -> QueueState {
        QueueState {
            next_avail: self.queue.next_avail(),
            next_used: self.queue.next_used(),
            signalled: self.signalled,
        }
    }

    /// Becomes readable when the driver has made requests available.
    pub fn notified(&self) -> &Event {
        &self.notified
    }

    /// Logs what is wrong with the device; see [`Interrupt::complain`].
    pub fn complain(&self, what: impl std::fmt::Display) {
        self.interrupt.complain(what);
    }

    /// Guest RAM, for what chains point to.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Guest RAM as a whole, for a device that gives parts of it back.
    pub fn ram(&self) -> &GuestRam {
        &self.memory
    }

    /// Number of entries that the driver has chosen.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Serves requests until there are none, `most` have been, or `serve` says why not; then tells the driver of the
    /// answers. The driver is asked not to notify meanwhile.
    ///
    /// # Errors
    /// When the driver broke the rules, or `serve` failed.
    pub fn drain<W, E: From<Broken>>(
        &mut self,
        most: usize,
        serve: impl FnMut(&Self, &Chain) -> Result<Fate<W>, E>,
    ) -> Result<Drained<W>, E> {
        self.mute()?;
        let drained = self.take(most, serve)?;
        self.signal()?;
        match drained {
            Drained::Empty if self.unmute()? => Ok(Drained::Portion),
            drained => Ok(drained),
        }
    }

    /// As [`drain`](Self::drain), but neither tells the driver nor asks anything of it.
    ///
    /// # Errors
    /// As [`drain`](Self::drain).
    pub fn take<W, E: From<Broken>>(
        &mut self,
        most: usize,
        mut serve: impl FnMut(&Self, &Chain) -> Result<Fate<W>, E>,
    ) -> Result<Drained<W>, E> {
        let mut chain = std::mem::take(&mut self.chain);
        let mut drained = Drained::Portion;
        for _ in 0..most {
            if !self.pop(&mut chain)? {
                drained = Drained::Empty;
                break;
            }
            match serve(self, &chain)? {
                Fate::Answered(written) => self.push(chain.head(), written)?,
                Fate::Kept => {}
                Fate::KeptLast(why) => {
                    drained = Drained::Waits(why);
                    break;
                }
                Fate::PutBack(why) => {
                    self.unpop();
                    drained = Drained::Waits(why);
                    break;
                }
            }
        }
        self.chain = chain;
        Ok(drained)
    }

    /// Takes the next request into `chain`; false when there is none.
    ///
    /// # Errors
    /// When the driver broke the rules; this queue gives nothing more then.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, Broken> {
        // The device's size, not the one that the driver has chosen: an indirect table may be longer than the ring
        // that it hangs on (Linux makes it as long as `seg_max` says).
        let size = self.queue.max_size();
        let memory: &GuestMemory = &self.memory;
        match self.queue.iter(memory)?.next() {
            Some(descriptors) => chain.fill(memory, descriptors, size).map(|()| true),
            None => Ok(false),
        }
    }

    /// Puts the request that was popped last back: the next [`pop`](Self::pop) returns it again.
    pub fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Hands a request back, with the number of bytes written to its writable part.
    ///
    /// # Errors
    /// When the used ring cannot be written.
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), Broken> {
        Ok(self.queue.add_used(&*self.memory, head, written)?)
    }

    /// Hands several requests back at once, each with the bytes written to it: the driver sees all of them
    /// or none, as the buffers of one received frame must be (§5.1.6.4).
    ///
    /// # Errors
    /// When the used ring cannot be written.
    pub fn push_together(
        &mut self,
        requests: impl Iterator<Item = (u16, u32)>,
    ) -> Result<(), Broken> {
        let ring = self.queue.used_ring();
        let mut index = self.queue.next_used();
        for (head, written) in requests {
            // §2.7.8: flags and index, then an id and a length for each element.
            let element = GuestAddress(ring + 4 + 8 * u64::from(index % self.queue.size()));
            let value = u64::from(written) << 32 | u64::from(head);
            self.memory.write_obj(value.to_le(), element)?;
            index = index.wrapping_add(1);
        }
        self.queue.set_next_used(index);
        let at = GuestAddress(ring + 2);
        Ok(self.memory.store(index.to_le(), at, Ordering::Release)?)
    }

    /// Raises the interrupt if the driver wants to know of what was pushed since the last call (§2.7.7).
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn signal(&mut self) -> Result<(), Broken> {
        let used = self.queue.next_used();
        let before = std::mem::replace(&mut self.signalled, used);
        if used == before {
            return Ok(());
        }
        // What was pushed must be visible before the driver's wish is read, or both sides could sleep.
        fence(Ordering::SeqCst);
        let read = |offset: u64| {
            let at = GuestAddress(self.queue.avail_ring() + offset);
            self.memory.load(at, Ordering::Relaxed).map(u16::from_le)
        };
        let wanted = if self.queue.event_idx_enabled() {
            let event = read(4 + 2 * u64::from(self.queue.size()))?;
            used.wrapping_sub(event).wrapping_sub(1) < used.wrapping_sub(before)
        } else {
            read(0)? & NO_INTERRUPT == 0
        };
        if wanted {
            self.interrupt.used_buffers(self.number);
        }
        Ok(())
    }

    /// Asks the driver not to notify while the device is looking anyway.
    ///
    /// # Errors
    /// When the ring cannot be written.
    pub fn mute(&mut self) -> Result<(), Broken> {
        Ok(self.queue.disable_notification(&*self.memory)?)
    }

    /// Asks for notifications again; true if requests came in between, which must then be looked at.
    ///
    /// # Errors
    /// When the ring cannot be accessed.
    pub fn unmute(&mut self) -> Result<bool, Broken> {
        Ok(self.queue.enable_notification(&*self.memory)?)
    }
}
