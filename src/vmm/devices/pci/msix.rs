//! Interrupts by messages (MSI-X, PCI Local Bus 3.0 §6.8.2): a table of what is sent for each vector, which a driver masks
//! one by one or all together, and which of the masked are pending.

use kvmlet_sys::event::Event;
use kvmlet_sys::thread::lock;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of an entry: address, data, control.
const ENTRY_BYTES: u64 = 16;
/// In the control word.
const MASKED: u32 = 1;
/// Bits of an address that are none.
const MISALIGNED: u32 = 3;

/// What is written where, as an interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The address.
    pub address: u64,
    /// The data.
    pub data: u32,
}

/// The way of one vector's interrupts to processors.
pub trait MessageLine: Send + Sync {
    /// Has them be that message from now on, or come to nothing.
    fn route(&self, message: Option<Message>);

    /// Interrupts.
    fn signal(&self);

    /// What somebody else can interrupt by, as [`signal`](Self::signal) does; what comes while it has no route comes to
    /// nothing.
    fn event(&self) -> Option<&Event> {
        None
    }
}

/// An entry of the table as plain data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VectorState {
    /// The address that is written to.
    pub address: u64,
    /// What is written there.
    pub data: u32,
    /// Masked by itself.
    pub masked: bool,
    /// It waits until it is not masked.
    pub pending: bool,
}

/// A vector.
struct Entry {
    message: Message,
    control: u32,
    pending: bool,
    /// Somebody else interrupts by it, too, without a word: of what comes while it is masked nobody knows here, so it counts
    /// as pending then.
    lent: bool,
    /// Where its interrupts go now.
    routed: Option<Message>,
    line: Box<dyn MessageLine>,
}

/// The table, and the switches for all of it.
pub struct Msix {
    enabled: AtomicBool,
    masked: AtomicBool,
    entries: Vec<Mutex<Entry>>,
}

impl Msix {
    /// A vector for each line; all masked, and switched off.
    pub fn new(lines: impl IntoIterator<Item = Box<dyn MessageLine>>) -> Self {
        let entry = |line| Entry {
            message: Message::default(),
            control: MASKED,
            pending: false,
            lent: false,
            routed: None,
            line,
        };
        Self {
            enabled: AtomicBool::new(false),
            masked: AtomicBool::new(false),
            entries: lines.into_iter().map(entry).map(Mutex::new).collect(),
        }
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u16 {
        self.entries.len() as u16
    }

    /// Is it switched on?
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// Switches it on or off, and masks all vectors or none beside those that are masked by themselves.
    pub fn switch(&self, enabled: bool, masked: bool) {
        self.enabled.store(enabled, Ordering::Release);
        self.masked.store(masked, Ordering::Release);
        for entry in &self.entries {
            self.settle(&mut lock(entry));
        }
    }

    /// The table, and what is pending.
    pub fn state(&self) -> Vec<VectorState> {
        let entries = self.entries.iter().map(|entry| {
            let entry = lock(entry);
            VectorState {
                address: entry.message.address,
                data: entry.message.data,
                masked: entry.control & MASKED != 0,
                pending: entry.pending,
            }
        });
        entries.collect()
    }

    /// Has the table be what another was, and vectors go where it says when they are [switched on](Self::switch).
    pub fn take_up(&self, table: &[VectorState]) {
        for (entry, state) in self.entries.iter().zip(table) {
            let mut entry = lock(entry);
            entry.message = Message {
                address: state.address & !u64::from(MISALIGNED),
                data: state.data,
            };
            entry.control = u32::from(state.masked);
            entry.pending = state.pending;
        }
    }

    /// Interrupts by that vector, if there is one: at once, or when it is not masked any more.
    pub fn interrupt(&self, vector: u16) {
        let Some(entry) = self.entries.get(usize::from(vector)) else {
            return;
        };
        let mut entry = lock(entry);
        // Only what is routed comes to anything, and it changes under this lock.
        match entry.routed {
            Some(_) => entry.line.signal(),
            None => entry.pending = self.is_enabled(),
        }
    }

    /// Has somebody else interrupt by that vector, by the event that `take` is given; false if there is none.
    ///
    /// # Errors
    /// What `take` said.
    pub fn lend(
        &self,
        vector: u16,
        take: &mut dyn FnMut(&Event) -> io::Result<()>,
    ) -> io::Result<bool> {
        let Some(entry) = self.entries.get(usize::from(vector)) else {
            return Ok(false);
        };
        let mut entry = lock(entry);
        let Some(event) = entry.line.event() else {
            return Ok(false);
        };
        take(event)?;
        entry.lent = true;
        entry.pending |= entry.routed.is_none();
        Ok(true)
    }

    /// Nobody else interrupts any more.
    pub fn take_back(&self) {
        let entries = self.entries.iter();
        entries.for_each(|entry| lock(entry).lent = false);
    }

    /// Has a vector's interrupts go where its entry says.
    fn settle(&self, entry: &mut Entry) {
        let enabled = self.is_enabled();
        let masked = self.masked.load(Ordering::Acquire) || entry.control & MASKED != 0;
        let routed = (enabled && !masked).then_some(entry.message);
        if routed != entry.routed {
            entry.line.route(routed);
            entry.routed = routed;
        }
        if routed.is_none() && entry.lent {
            entry.pending = true;
        } else if !enabled {
            entry.pending = false;
        } else if routed.is_some() && std::mem::take(&mut entry.pending) {
            entry.line.signal();
        }
    }

    /// Reads the table: aligned words of 32 or 64 bits (§6.8.2.6), of which others read as zero.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        each_word(offset, data.len(), |at, range| {
            data[range].copy_from_slice(&self.read_word(at).to_le_bytes());
        });
    }

    /// Writes to the table, likewise.
    pub fn write_table(&self, offset: u64, data: &[u8]) {
        each_word(offset, data.len(), |at, range| {
            let value = data[range].try_into().map_or(0, u32::from_le_bytes);
            self.write_word(at, value);
        });
    }

    fn read_word(&self, offset: u64) -> u32 {
        let Some(entry) = self.entries.get((offset / ENTRY_BYTES) as usize) else {
            return 0;
        };
        let entry = lock(entry);
        match offset % ENTRY_BYTES {
            0 => entry.message.address as u32,
            4 => (entry.message.address >> 32) as u32,
            8 => entry.message.data,
            _ => entry.control,
        }
    }

    fn write_word(&self, offset: u64, value: u32) {
        let Some(entry) = self.entries.get((offset / ENTRY_BYTES) as usize) else {
            return;
        };
        let mut entry = lock(entry);
        let message = &mut entry.message;
        match offset % ENTRY_BYTES {
            // Of words of 32 bits.
            0 => message.address = message.address >> 32 << 32 | u64::from(value & !MISALIGNED),
            4 => message.address = message.address & 0xffff_ffff | u64::from(value) << 32,
            8 => message.data = value,
            _ => entry.control = value & MASKED,
        }
        self.settle(&mut entry);
    }

    /// Reads which vectors are pending, a bit for each.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (n, byte) in (offset..).zip(data) {
            let first = usize::try_from(n * 8).unwrap_or(usize::MAX);
            let entries = self.entries.iter().skip(first).take(8);
            let bits = entries.enumerate();
            *byte = bits.fold(0, |byte, (bit, entry)| {
                byte | u8::from(lock(entry).pending) << bit
            });
        }
    }
}

/// The aligned words of an access that consists of such, and where each is in it.
fn each_word(offset: u64, bytes: usize, mut word: impl FnMut(u64, std::ops::Range<usize>)) {
    if offset.is_multiple_of(4) && matches!(bytes, 4 | 8) {
        for n in (0..bytes).step_by(4) {
            word(offset + n as u64, n..n + 4);
        }
    }
}

#[cfg(test)]
#[path = "msix_tests.rs"]
pub(crate) mod tests;
