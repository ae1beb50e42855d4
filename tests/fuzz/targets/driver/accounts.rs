//! What a driver knows of a queue: what it has asked, and what was answered. Nothing is answered that was not asked.

use super::ram;

/// Entries of each queue.
pub const ENTRIES: u16 = 16;
/// Where the rings of a queue begin, from its descriptor table.
pub const AVAIL: u64 = 0x400;
pub const USED: u64 = 0x800;

/// A request that was made available.
struct Asked {
    head: u16,
    descriptors: Vec<u16>,
    /// The most that the answer may say was written, in bytes, where nothing else can have been asked.
    writable: Option<u64>,
}

pub struct Queue {
    pub number: u32,
    pub rings: u64,
    available: u16,
    seen: u16,
    asked: Vec<Asked>,
}

impl Queue {
    /// After a reset.
    pub fn new(number: u32) -> Self {
        let rings = ram::rings_of(number);
        Self {
            number,
            rings,
            available: 0,
            seen: 0,
            asked: Vec::new(),
        }
    }

    /// Requests that were not answered yet.
    pub fn open(&self) -> usize {
        self.asked.len()
    }

    /// Descriptors that no open request has.
    pub fn free(&self, count: usize) -> Option<Vec<u16>> {
        let free = (0..ENTRIES).filter(|entry| {
            self.asked
                .iter()
                .all(|asked| !asked.descriptors.contains(entry))
        });
        let free: Vec<u16> = free.take(count).collect();
        (free.len() == count).then_some(free)
    }

    /// Makes a request available; true if the device wants to be told of it.
    pub fn offer(&mut self, descriptors: Vec<u16>, writable: Option<u64>, event_idx: bool) -> bool {
        let head = descriptors[0];
        let slot = self.rings + AVAIL + 4 + 2 * u64::from(self.available % ENTRIES);
        ram::set_half_word(slot, head);
        let old = self.available;
        self.available = old.wrapping_add(1);
        ram::set_half_word(self.rings + AVAIL + 2, self.available);
        self.asked.push(Asked {
            head,
            descriptors,
            writable,
        });
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        // §2.7.10.
        match event_idx {
            true => {
                let event = ram::half_word(self.rings + USED + 4 + 8 * u64::from(ENTRIES));
                self.available.wrapping_sub(event).wrapping_sub(1)
                    < self.available.wrapping_sub(old)
            }
            false => ram::half_word(self.rings + USED) & 1 == 0,
        }
    }

    /// Takes the answers that have come.
    pub fn reap(&mut self) {
        let used = ram::half_word(self.rings + USED + 2);
        let new = used.wrapping_sub(self.seen);
        let (number, open) = (self.number, self.asked.len());
        assert!(
            usize::from(new) <= open,
            "queue {number}: {new} answers to {open} requests"
        );
        while self.seen != used {
            let slot = self.rings + USED + 4 + 8 * u64::from(self.seen % ENTRIES);
            let (head, written) = (ram::word(slot), ram::word(slot + 4));
            let place = self
                .asked
                .iter()
                .position(|asked| u32::from(asked.head) == head);
            let Some(place) = place else {
                panic!("queue {number}: {head} is the answer to nothing");
            };
            let asked = self.asked.remove(place);
            let most = asked.writable.unwrap_or(u32::MAX.into());
            assert!(
                u64::from(written) <= most,
                "queue {number}: {written} bytes in {most}"
            );
            self.seen = self.seen.wrapping_add(1);
        }
    }

    /// Has an answer come that was not taken yet?
    pub fn is_answered(&self) -> bool {
        ram::half_word(self.rings + USED + 2) != self.seen
    }

    /// Asks to be interrupted by the next answer (EVENT_IDX); true if one has come in between.
    pub fn wait_for_next(&self) -> bool {
        let event = self.rings + AVAIL + 4 + 2 * u64::from(ENTRIES);
        ram::set_half_word(event, self.seen);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.is_answered()
    }
}
