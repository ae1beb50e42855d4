//! The console: a guest that reads and writes its port's registers as it likes, a reader of its output that stands
//! still or takes a little at a time, and somebody who types. Nothing is lost that the port has taken, either way.
#![no_main]

use kvmlet_sys::event::Event;
use kvmlet_vmm::devices::Device;
use kvmlet_vmm::devices::outlet::{Outlet, Recall};
use kvmlet_vmm::devices::serial::{Serial, SerialInput};
use libfuzzer_sys::fuzz_target;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// Registers, and bits of them.
const DATA: u64 = 0;
const LINE_CONTROL: u64 = 3;
const MODEM_CONTROL: u64 = 4;
const LINE_STATUS: u64 = 5;
const DIVISOR: u8 = 0x80;
const REQUEST_TO_SEND: u8 = 2;
const LOOP: u8 = 0x10;
const DATA_READY: u8 = 1;

fuzz_target!(|bytes: &[u8]| {
    let mut console = Console::new();
    for step in bytes.chunks_exact(4) {
        console.step(step[0], step[1], [step[2], step[3]]);
    }
    console.finish();
});

/// A writer that takes as much as it is told to, once.
#[derive(Clone, Default)]
struct Reader(Arc<Mutex<Read>>);

#[derive(Default)]
struct Read {
    all: Vec<u8>,
    /// What the next writes take; all, once there are no more of these.
    portions: Vec<u8>,
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut read = self.0.lock().expect("one thread");
        let taken = match read.portions.pop() {
            Some(0) => return Err(io::ErrorKind::Interrupted.into()),
            Some(most) => bytes.len().min(most.into()),
            None => bytes.len(),
        };
        read.all.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Console {
    serial: Serial,
    input: SerialInput,
    reader: Reader,
    recall: Recall,
    line_control: u8,
    modem_control: u8,
    /// What the guest has sent.
    sent: Vec<u8>,
    /// What was typed and not taken yet, and what comes next.
    typed: Vec<u8>,
    next: u8,
    /// Whoever types waits to be told that there is room.
    waits: bool,
    /// What the port has taken, and what the guest has read of it; nothing is known of that once it was in a loop.
    taken: Vec<u8>,
    received: Vec<u8>,
    looped: bool,
}

impl Console {
    fn new() -> Self {
        let event = || Event::new().expect("an event");
        let (reader, recall) = (Reader::default(), Recall::default());
        let outlet = Outlet::new(Box::new(reader.clone()), recall.clone());
        let serial = Serial::new(event(), outlet, Arc::new(event()));
        Self {
            input: serial.input(),
            serial,
            reader,
            recall,
            line_control: 3,
            modem_control: 8,
            sent: Vec::new(),
            typed: Vec::new(),
            next: 0,
            waits: false,
            taken: Vec::new(),
            received: Vec::new(),
            looped: false,
        }
    }

    fn step(&mut self, how: u8, value: u8, more: [u8; 2]) {
        let offset = u64::from(how >> 4 & 7);
        match how & 15 {
            0..=3 => self.write(offset, value),
            4 => self.write(DATA, value),
            5 | 6 => drop(self.read(offset)),
            7 => drop(self.read(DATA)),
            8 => self.recall.set(value & 1 == 1),
            9 => self.serial.drain(),
            10 => self
                .reader
                .0
                .lock()
                .expect("one thread")
                .portions
                .extend(more),
            11 => {
                // Accesses of other widths do nothing.
                let width = [2, 4, 8][usize::from(value) % 3];
                self.serial.read(offset, &mut [0; 8][..width]);
                let _ = self.serial.write(offset, &[0xff; 8][..width]);
            }
            _ => {
                let bytes = (0..value).map(|index| self.next.wrapping_add(index));
                self.typed.extend(bytes);
                self.next = self.next.wrapping_add(value);
            }
        }
        self.feed();
        let read = &self.reader.0.lock().expect("one thread").all;
        assert!(self.sent.starts_with(read), "{read:?} of {:?}", self.sent);
    }

    fn write(&mut self, offset: u64, value: u8) {
        match offset {
            DATA if self.line_control & DIVISOR != 0 => {}
            DATA if self.modem_control & LOOP != 0 => self.looped = true,
            DATA => self.sent.push(value),
            LINE_CONTROL => self.line_control = value,
            MODEM_CONTROL => self.modem_control = value,
            _ => {}
        }
        let _ = self.serial.write(offset, &[value]);
    }

    fn read(&mut self, offset: u64) -> u8 {
        let ready = self.peek(LINE_STATUS) & DATA_READY != 0;
        let byte = self.peek(offset);
        if offset == DATA && self.line_control & DIVISOR == 0 && ready {
            self.received.push(byte);
        }
        byte
    }

    fn peek(&mut self, offset: u64) -> u8 {
        let mut data = [0];
        self.serial.read(offset, &mut data);
        data[0]
    }

    /// Types what was not taken yet; who could not is told when to go on.
    fn feed(&mut self) {
        if self.typed.is_empty() || self.waits && self.input.wanted().take() == 0 {
            return;
        }
        let taken = self.input.send(&self.typed);
        self.taken.extend(self.typed.drain(..taken));
        self.waits = !self.typed.is_empty();
    }

    /// A guest that reads, and a reader that does.
    fn finish(mut self) {
        self.write(LINE_CONTROL, 3);
        self.write(MODEM_CONTROL, REQUEST_TO_SEND);
        loop {
            self.feed();
            match self.peek(LINE_STATUS) & DATA_READY {
                0 => break,
                _ => drop(self.read(DATA)),
            }
        }
        assert!(
            self.typed.is_empty(),
            "{} bytes wait, and nobody calls",
            self.typed.len()
        );
        assert!(self.looped || self.received == self.taken, "what was typed");
        self.recall.set(false);
        self.reader.0.lock().expect("one thread").portions.clear();
        self.serial.drain();
        assert!(
            self.reader.0.lock().expect("one thread").all == self.sent,
            "what was sent"
        );
    }
}
