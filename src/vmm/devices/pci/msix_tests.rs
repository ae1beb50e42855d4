//! Vectors that are masked, lent and led elsewhere.

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

/// A line that somebody else signals, which is taken for told.
struct Lent(Told, Event);

impl MessageLine for Lent {
    fn route(&self, message: Option<Message>) {
        self.0.route(message);
    }

    fn signal(&self) {
        self.0.signal();
    }

    fn event(&self) -> Option<&Event> {
        Some(&self.1)
    }
}

#[test]
fn what_a_lent_vector_may_have_missed_comes_when_it_is_not_masked() {
    let told = Told::default();
    let event = Event::new().unwrap();
    let line = Lent(told.clone(), event.try_clone().unwrap());
    let msix = Msix::new([Box::new(line) as _, Box::new(Told::default()) as _]);
    set(&msix, 0, 0xfee0_0000, 7, true);
    msix.switch(true, false);
    let mut take = |event: &Event| {
        event.signal();
        Ok(())
    };
    assert!(!msix.lend(2, &mut take).unwrap(), "no such vector");
    assert!(!msix.lend(1, &mut take).unwrap(), "no event");
    assert!(msix.lend(0, &mut take).unwrap());
    assert_eq!(event.take(), 1);
    let message = [Message {
        address: 0xfee0_0000,
        data: 7,
    }];
    let mask = |masked| msix.write_table(12, &u32::from(masked).to_le_bytes());
    mask(false);
    assert_eq!(told.take(), message, "it was masked when it was lent");
    mask(true);
    mask(false);
    assert_eq!(told.take(), message);
    msix.switch(false, false);
    msix.switch(true, false);
    assert_eq!(told.take(), message);
    msix.take_back();
    mask(true);
    mask(false);
    assert_eq!(told.take(), []);
    let refuse = &mut |_: &Event| Err(io::ErrorKind::Other.into());
    assert!(msix.lend(0, refuse).is_err());
    mask(true);
    mask(false);
    assert_eq!(told.take(), []);
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
