//! Interrupts by messages (MSI-X, PCI Local Bus 3.0 §6.8.2): a table of what is sent for each vector, which a driver masks
//! one by one or all together, and which of the masked are pending.

use kvmlet_sys::thread::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of an entry: address, data, control.
const ENTRY_BYTES: u64 = 16;
/// In the control word.
const MASKED: u32 = 1;

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
}

/// A vector.
struct Entry {
    message: Message,
    control: u32,
    pending: bool,
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

    /// Has a vector's interrupts go where its entry says.
    fn settle(&self, entry: &mut Entry) {
        let enabled = self.is_enabled();
        let masked = self.masked.load(Ordering::Acquire) || entry.control & MASKED != 0;
        let routed = (enabled && !masked).then_some(entry.message);
        if routed != entry.routed {
            entry.line.route(routed);
            entry.routed = routed;
        }
        if !enabled {
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
            0 => message.address = message.address >> 32 << 32 | u64::from(value & !3),
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
pub(crate) mod tests {
    use super::*;
    use std::sync::Arc;

    /// A line that remembers.
    #[derive(Clone, Default)]
    pub struct Told(Arc<Mutex<(Option<Message>, Vec<Message>)>>);

    impl Told {
        /// What has come since this was last asked.
        pub fn take(&self) -> Vec<Message> {
            std::mem::take(&mut lock(&self.0).1)
        }
    }

    impl MessageLine for Told {
        fn route(&self, message: Option<Message>) {
            lock(&self.0).0 = message;
        }

        fn signal(&self) {
            let mut told = lock(&self.0);
            let message = told.0.expect("nothing is signalled that leads nowhere");
            told.1.push(message);
        }
    }

    fn table(count: usize) -> (Msix, Vec<Told>) {
        let lines = vec![Told::default(); count];
        // Each its own.
        let lines: Vec<Told> = lines.iter().map(|_| Told::default()).collect();
        let msix = Msix::new(lines.iter().map(|line| Box::new(line.clone()) as _));
        (msix, lines)
    }

    fn set(msix: &Msix, vector: u64, address: u64, data: u32, masked: bool) {
        let at = vector * ENTRY_BYTES;
        msix.write_table(at, &address.to_le_bytes());
        msix.write_table(at + 8, &data.to_le_bytes());
        msix.write_table(at + 12, &u32::from(masked).to_le_bytes());
    }

    #[test]
    fn masked_vectors_are_pending_and_come_when_they_are_not() {
        let (msix, lines) = table(2);
        let pending = || {
            let mut byte = [0xff];
            msix.read_pending(0, &mut byte);
            byte[0]
        };
        let message = |address, data| Message { address, data };
        set(&msix, 1, 0x1_fee0_1004, 0x41, false);
        msix.interrupt(1);
        assert_eq!((lines[1].take(), pending()), (vec![], 0), "switched off");
        msix.switch(true, true);
        msix.interrupt(1);
        msix.interrupt(1);
        msix.interrupt(0);
        assert_eq!((lines[1].take(), pending()), (vec![], 0b11));
        msix.switch(true, false);
        assert_eq!(lines[1].take(), [message(0x1_fee0_1004, 0x41)], "once");
        assert_eq!(pending(), 0b01, "the other one is masked by itself");
        set(&msix, 0, 0xfee0_0000, 0x42, false);
        assert_eq!(lines[0].take(), [message(0xfee0_0000, 0x42)]);
        msix.interrupt(0);
        assert_eq!(lines[0].take().len(), 1);
        // One that is led elsewhere while it is not masked goes there.
        msix.write_table(8, &0x43u32.to_le_bytes());
        msix.interrupt(0);
        assert_eq!(lines[0].take(), [message(0xfee0_0000, 0x43)]);
        set(&msix, 0, 0, 0, true);
        msix.interrupt(0);
        msix.switch(false, false);
        assert_eq!((lines[0].take(), pending()), (vec![], 0));
        msix.interrupt(7);
    }

    #[test]
    fn the_table_is_read_as_it_was_written() {
        let (msix, _) = table(2);
        let read = |offset, bytes: usize| {
            let mut data = vec![0; bytes];
            msix.read_table(offset, &mut data);
            data
        };
        assert_eq!(read(12, 4), [1, 0, 0, 0], "masked at first");
        set(&msix, 1, 0x12_3456_7803, 9, false);
        assert_eq!(read(16, 8), 0x12_3456_7800u64.to_le_bytes());
        assert_eq!(read(24, 8), [9, 0, 0, 0, 0, 0, 0, 0]);
        // What is no word is nothing, and behind the last there is nothing.
        msix.write_table(17, &[1]);
        msix.write_table(18, &[1, 1, 1, 1]);
        msix.write_table(32, &[1; 8]);
        assert_eq!(read(16, 8), 0x12_3456_7800u64.to_le_bytes());
        assert_eq!(read(32, 8), [0; 8]);
        assert_eq!(read(u64::MAX - 3, 4), [0; 4]);
    }
}
