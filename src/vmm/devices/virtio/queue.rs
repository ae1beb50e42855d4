//! A virtqueue in use: requests in, answers out, and the driver called when it wants to be.

mod lent;

use super::broken::Broken;
use super::chain::Chain;
use super::interrupt::Interrupt;
use super::rings::Rings;
use crate::memory::GuestRam;
use kvmlet_sys::event::Event;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// VIRTQ_AVAIL_F_NO_INTERRUPT (§2.7.6): the driver does not want to be called.
const NO_INTERRUPT: u16 = 1;
/// VIRTQ_USED_F_NO_NOTIFY (§2.7.10): the device does not want to be called.
const NO_NOTIFY: u16 = 1;
/// Answers that a driver sees together, if more come. A driver that looks all the time and one that serves have the
/// line of the used index in turn, and each turn costs as much as a small request; one that waits for whole batches has
/// nothing to do meanwhile.
const PORTION: u16 = 8;

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// The index of the request that comes next.
    pub next_avail: u16,
    /// The index of the answer that comes next.
    pub next_used: u16,
    /// The used index when the driver was last told of it.
    pub signalled: u16,
}

/// What a queue is made of.
pub(super) struct QueueParts {
    pub number: u16,
    /// The most entries that its driver could have chosen.
    pub size_max: u16,
    /// Both sides say by an index when they want to be called (§2.7.7, §2.7.10).
    pub event_idx: bool,
    pub rings: Rings,
    pub interrupt: Arc<Interrupt>,
    pub notified: Event,
}

/// A queue as an active device sees it.
///
/// Its driver sees answers [by portions](Self::show_portion), and all of them when it is [told of them](Self::signal). So
/// a device that stops looking for requests, for whatever reason, has signalled before.
pub struct Virtqueue {
    parts: QueueParts,
    /// For the next request, with its allocations.
    chain: Chain,
    /// The request that comes next.
    next_avail: u16,
    /// The driver's index, when it was looked at last: up to there requests are known.
    known: u16,
    /// The answer that comes next.
    next_used: u16,
    /// The used index that the driver sees.
    published: u16,
    /// The used index when the driver was last told of it.
    signalled: u16,
    /// The driver was asked not to notify.
    muted: bool,
}

impl Virtqueue {
    pub(super) fn new(parts: QueueParts) -> Self {
        Self {
            parts,
            chain: Chain::default(),
            next_avail: 0,
            known: 0,
            next_used: 0,
            published: 0,
            signalled: 0,
            muted: false,
        }
    }

    /// One that has come as far as that already.
    pub(super) fn resumed(mut self, state: QueueState) -> Self {
        (self.next_avail, self.known) = (state.next_avail, state.next_avail);
        // A device that rests has shown all of its answers.
        (self.next_used, self.published) = (state.next_used, state.next_used);
        self.signalled = state.signalled;
        self
    }

    /// Its number, by which driver and device know it.
    pub fn number(&self) -> u16 {
        self.parts.number
    }

    /// How far it has come.
    pub fn state(&self) -> QueueState {
        QueueState {
            next_avail: self.next_avail,
            next_used: self.next_used,
            signalled: self.signalled,
        }
    }

    /// Becomes readable when the driver has made requests available.
    pub fn notified(&self) -> &Event {
        &self.parts.notified
    }

    /// Logs what is wrong with the device; see [`Interrupt::complain`].
    pub fn complain(&self, what: impl std::fmt::Display) {
        self.parts.interrupt.complain(what);
    }

    /// Guest RAM, for what chains point to.
    pub fn memory(&self) -> &GuestRam {
        self.parts.rings.ram()
    }

    /// Number of entries that the driver has chosen.
    pub fn size(&self) -> u16 {
        self.parts.rings.size()
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
        self.mute();
        let drained = self.take(most, serve);
        self.signal();
        let drained = drained?;
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
                Fate::Answered(written) => {
                    self.push(chain.head(), written);
                    self.show_portion();
                }
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
        if self.next_avail == self.known && !self.look()? {
            return Ok(false);
        }
        let rings = &self.parts.rings;
        let head = rings.head(self.next_avail);
        self.next_avail = self.next_avail.wrapping_add(1);
        // The device's size, not the one that the driver has chosen: an indirect table may be longer than the ring
        // that it hangs on (Linux makes it as long as `seg_max` says).
        let longest = self.parts.size_max;
        chain.fill(rings.ram(), rings.table(), head, longest)?;
        Ok(true)
    }

    /// Looks how far the driver is; true if there are requests to be taken.
    fn look(&mut self) -> Result<bool, Broken> {
        let rings = &self.parts.rings;
        let index = rings.driver_index();
        let (requests, size) = (index.wrapping_sub(self.next_avail), rings.size());
        if requests > size {
            return Err(Broken::Ring { requests, size });
        }
        self.known = index;
        Ok(requests > 0)
    }

    /// How many requests the driver has made available so far, as a number that comes again.
    pub fn offered(&self) -> u16 {
        self.parts.rings.driver_index()
    }

    /// Whether the driver has made a request available that was not popped yet, as far as that can be told without a look
    /// at the rules.
    pub fn has_more(&self) -> bool {
        self.offered() != self.next_avail
    }

    /// Puts the request that was popped last back: the next [`pop`](Self::pop) returns it again.
    pub fn unpop(&mut self) {
        self.next_avail = self.next_avail.wrapping_sub(1);
    }

    /// Hands a request back, with the number of bytes written to its writable part. The driver sees that with the next
    /// [signal](Self::signal), or [before](Self::show_portion).
    pub fn push(&mut self, head: u16, written: u32) {
        self.parts.rings.set_answer(self.next_used, head, written);
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// Shows the driver what was pushed, if that is worth it: whatever belongs together has been pushed.
    pub fn show_portion(&mut self) {
        if self.next_used.wrapping_sub(self.published) >= PORTION {
            self.show();
        }
    }

    fn show(&mut self) {
        if self.published != self.next_used {
            self.published = self.next_used;
            self.parts.rings.publish(self.published);
        }
    }

    /// Shows the driver what was pushed, and raises the interrupt if it wants to know of what was since the last call
    /// (§2.7.7).
    pub fn signal(&mut self) {
        self.show();
        let (rings, used) = (&self.parts.rings, self.next_used);
        let before = std::mem::replace(&mut self.signalled, used);
        if used == before {
            return;
        }
        // What was pushed must be visible before the driver's wish is read, or both sides could sleep.
        fence(Ordering::SeqCst);
        let wanted = match self.parts.event_idx {
            true => {
                let event = rings.used_event();
                used.wrapping_sub(event).wrapping_sub(1) < used.wrapping_sub(before)
            }
            false => rings.driver_flags() & NO_INTERRUPT == 0,
        };
        if wanted {
            self.parts.interrupt.used_buffers(self.parts.number);
        }
    }

    /// Asks the driver not to notify while the device is looking anyway. One that names the request to be notified of
    /// (EVENT_IDX) has named one that has come.
    pub fn mute(&mut self) {
        if !std::mem::replace(&mut self.muted, true) && !self.parts.event_idx {
            self.parts.rings.set_device_flags(NO_NOTIFY);
        }
    }

    /// Asks for notifications again; true if requests came in between, which must then be looked at.
    ///
    /// # Errors
    /// When the driver broke the rules.
    pub fn unmute(&mut self) -> Result<bool, Broken> {
        let rings = &self.parts.rings;
        self.muted = false;
        match self.parts.event_idx {
            true => rings.set_avail_event(self.next_avail),
            false => rings.set_device_flags(0),
        }
        // The wish must be visible before the driver's index is read, or both sides could sleep.
        fence(Ordering::SeqCst);
        self.look()
    }
}

#[cfg(test)]
mod tests {
    use super::super::interrupt::silence::Silence;
    use super::super::rings::Places;
    use super::*;
    use crate::memory::Backing;
    use vm_memory::{Bytes, GuestAddress};

    const AVAIL: u64 = 0x1000;
    const USED: u64 = 0x2000;

    fn queue(ram: &GuestRam) -> Virtqueue {
        let places = Places {
            size: 32,
            descriptors: 0,
            driver: AVAIL,
            device: USED,
        };
        Virtqueue::new(QueueParts {
            number: 0,
            size_max: 32,
            event_idx: false,
            rings: Rings::find(ram, places).unwrap(),
            interrupt: Arc::new(Interrupt::new("test", Arc::new(Silence))),
            notified: Event::new().unwrap(),
        })
    }

    fn ram() -> GuestRam {
        GuestRam::allocate(&[(GuestAddress(0), 1 << 16)], Backing::default()).unwrap()
    }

    #[test]
    fn answers_are_seen_by_portions_and_all_before_the_queue_rests() {
        let ram = ram();
        let mut queue = queue(&ram);
        let seen = || ram.read_obj::<u16>(GuestAddress(USED + 2)).unwrap();
        ram.write_obj(20u16, GuestAddress(AVAIL + 2)).unwrap();
        let mut all = Vec::new();
        let drained = queue.take::<(), Broken>(usize::MAX, |_, _| {
            all.push(seen());
            Ok(Fate::Answered(0))
        });
        assert_eq!(drained.unwrap(), Drained::Empty);
        assert_eq!(all, [vec![0; 8], vec![8; 8], vec![16; 4]].concat());
        assert_eq!(seen(), 16);
        queue.signal();
        assert_eq!(seen(), 20);
        // What is one frame is not shown in parts.
        (0..PORTION + 1).for_each(|head| queue.push(head, 0));
        assert_eq!(seen(), 20);
        queue.show_portion();
        assert_eq!(seen(), 29);
    }

    #[test]
    fn more_requests_than_entries_are_refused_whenever_they_come() {
        let ram = ram();
        let mut queue = queue(&ram);
        let mut chain = Chain::default();
        let mut pop = |queue: &mut Virtqueue, index: u16| {
            ram.write_obj(index, GuestAddress(AVAIL + 2)).unwrap();
            queue.pop(&mut chain)
        };
        assert!(!pop(&mut queue, 0).unwrap());
        assert!(matches!(
            pop(&mut queue, 33),
            Err(Broken::Ring {
                requests: 33,
                size: 32
            })
        ));
        assert!(pop(&mut queue, 1).unwrap());
        assert!(matches!(pop(&mut queue, 0), Err(Broken::Ring { .. })));
        assert!(queue.unmute().is_err());
    }
}
