//! A 16550A serial port: registers by vm-superio, output to a writer, input from a queue that can run full.

use super::bus::lock;
use super::{Action, Complaints, Device};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use vm_superio::serial::{Error, NoEvents};
use vm_superio::{Serial as Uart, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// Number of its ports.
pub const PORTS: u64 = 8;
/// Modem control register, and its "request to send" bit: the guest is ready to receive.
const MODEM_CONTROL: u8 = 4;
const REQUEST_TO_SEND: u8 = 2;

/// The UART's interrupt line.
#[derive(Debug)]
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

type Output = Box<dyn Write + Send>;

/// The port itself, shared between the guest (as a [`Device`]) and whoever feeds its [input](SerialInput).
pub struct Serial {
    uart: Uart<Line, NoEvents, Output>,
    input_wanted: Arc<EventFd>,
    starved: bool,
    output_lost: bool,
    complaints: Complaints,
}

impl Serial {
    /// A port that raises `interrupt`, writes what the guest sends to `output`, and signals `input_wanted`
    /// when it can take input again after it could not.
    pub fn new(interrupt: EventFd, output: Output, input_wanted: Arc<EventFd>) -> Self {
        let uart = Uart::new(Line(interrupt), output);
        Self {
            uart,
            input_wanted,
            starved: false,
            output_lost: false,
            complaints: Complaints::new(),
        }
    }

    /// Bytes that the guest would take now. A driver that starts up empties the FIFO before it raises RTS, so
    /// what is sent earlier would be lost.
    fn room(&mut self) -> usize {
        match self.uart.read(MODEM_CONTROL) & REQUEST_TO_SEND {
            0 => 0,
            _ => self.uart.fifo_capacity(),
        }
    }

    fn call_for_input(&mut self) {
        if self.starved && self.room() > 0 {
            self.starved = false;
            // Cannot fail short of 2^64 signals that nobody reads.
            let _ = self.input_wanted.write(1);
        }
    }

    /// An interrupt or output that fails does not stop a guest; that it failed is said once.
    fn note(&mut self, result: Result<(), Error<io::Error>>) {
        match result {
            Ok(()) => {}
            Err(Error::IOError(error)) if !self.output_lost => {
                self.output_lost = true;
                log::warn!("console output is lost from here on: {error}");
            }
            Err(Error::Trigger(error)) => {
                let what = format_args!("serial interrupt was not raised: {error}");
                self.complaints.warn(what);
            }
            Err(_) => {}
        }
    }
}

impl Device for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match data {
            [byte] => *byte = self.uart.read(offset as u8),
            _ => data.fill(0xff),
        }
        self.call_for_input();
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        if let [byte] = data {
            let result = self.uart.write(offset as u8, *byte);
            self.note(result);
            self.call_for_input();
        }
        Action::None
    }
}

/// The outside of the port: where input goes in.
#[derive(Clone)]
pub struct SerialInput {
    serial: Arc<Mutex<Serial>>,
    wanted: Arc<EventFd>,
}

impl SerialInput {
    /// The input side of a port.
    pub fn new(serial: &Arc<Mutex<Serial>>) -> Self {
        let wanted = lock(serial).input_wanted.clone();
        Self {
            serial: serial.clone(),
            wanted,
        }
    }

    /// Hands bytes to the guest and returns how many it took: none while it has not raised "request to
    /// send". When that is fewer than given, the [event](Self::wanted) is signalled as soon as it takes more.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let mut serial = lock(&self.serial);
        let room = serial.room().min(bytes.len());
        if room < bytes.len() {
            serial.starved = true;
        }
        if room == 0 {
            return 0;
        }
        match serial.uart.enqueue_raw_bytes(&bytes[..room]) {
            Ok(taken) => taken,
            // In loopback mode the line is cut: what arrives is lost, as on a real port.
            Err(error) => {
                serial.note(Err(error));
                room
            }
        }
    }

    /// Becomes readable when the port has room again after [`send`](Self::send) could not place everything.
    pub fn wanted(&self) -> &EventFd {
        &self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    const DATA: u64 = 0;
    const INTERRUPT_ENABLE: u64 = 1;
    const LINE_STATUS: u64 = 5;
    const NONBLOCK: i32 = libc::EFD_NONBLOCK;

    struct Wire(Sender<u8>);

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            bytes
                .iter()
                .try_for_each(|b| self.0.send(*b))
                .map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn port(output: Output) -> (Arc<Mutex<Serial>>, EventFd) {
        let interrupt = EventFd::new(NONBLOCK).unwrap();
        let wanted = Arc::new(EventFd::new(NONBLOCK).unwrap());
        let serial = Serial::new(interrupt.try_clone().unwrap(), output, wanted);
        (Arc::new(Mutex::new(serial)), interrupt)
    }

    #[test]
    fn output_goes_to_the_writer_and_survives_its_end() {
        let (sender, receiver) = channel();
        let (serial, _) = port(Box::new(Wire(sender)));
        let _ = serial.lock().unwrap().write(DATA, b"A");
        assert_eq!(receiver.recv().unwrap(), b'A');
        drop(receiver);
        assert_eq!(serial.lock().unwrap().write(DATA, b"B"), Action::None);
        assert!(serial.lock().unwrap().output_lost);
    }

    #[test]
    fn input_raises_the_interrupt_and_asks_for_more() {
        let (serial, interrupt) = port(Box::new(io::sink()));
        let _ = serial.lock().unwrap().write(INTERRUPT_ENABLE, &[1]);
        let input = SerialInput::new(&serial);
        let text = [b'x'; 100];
        assert_eq!(input.send(&text), 0, "not ready to receive");
        let _ = serial
            .lock()
            .unwrap()
            .write(MODEM_CONTROL.into(), &[REQUEST_TO_SEND]);
        assert_eq!(input.wanted().read().unwrap(), 1);
        let taken = input.send(&text);
        assert!(taken > 0 && taken < text.len(), "{taken}");
        assert_eq!(interrupt.read().unwrap(), 1);
        assert!(input.wanted().read().is_err(), "no room yet");
        let mut byte = [0];
        serial.lock().unwrap().read(DATA, &mut byte);
        assert_eq!(byte, *b"x");
        assert_eq!(input.wanted().read().unwrap(), 1);
        assert_eq!(input.send(&text), 1);
    }

    #[test]
    fn wide_accesses_are_harmless() {
        let (serial, _) = port(Box::new(io::sink()));
        let mut data = [0; 4];
        serial.lock().unwrap().read(LINE_STATUS, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(serial.lock().unwrap().write(DATA, &[1, 2]), Action::None);
    }
}
