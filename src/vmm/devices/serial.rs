//! A 16550A serial port: registers by vm-superio, output to a writer, input from a queue that can run full.

use super::last_output::LastOutput;
use super::outlet::Outlet;
use super::{Action, Complaints, Device};
use kvmlet_sys::event::Event;
use kvmlet_sys::thread::lock;
use std::io;
use std::sync::{Arc, Mutex};
use vm_superio::serial::{Error, NoEvents, SerialState as UartState};
use vm_superio::{Serial as Uart, Trigger};

/// Number of its ports.
pub const PORTS: u64 = 8;
/// Modem control register, and its "request to send" bit: the guest is ready to receive.
const MODEM_CONTROL: u8 = 4;
const REQUEST_TO_SEND: u8 = 2;
/// Its "loop" bit: the port hears itself, and the line is cut.
const LOOP: u8 = 0x10;

/// The UART's interrupt line.
#[derive(Debug)]
struct Line(Event);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.signal();
        Ok(())
    }
}

/// What the registers of a port hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SerialState {
    /// Divisor (low, high), interrupts (enabled, identified), line (control, status), modem (control, status), scratch.
    pub registers: [u8; 9],
    /// What has come and the guest has not read.
    pub received: Vec<u8>,
}

impl From<UartState> for SerialState {
    fn from(state: UartState) -> Self {
        Self {
            registers: [
                state.baud_divisor_low,
                state.baud_divisor_high,
                state.interrupt_enable,
                state.interrupt_identification,
                state.line_control,
                state.line_status,
                state.modem_control,
                state.modem_status,
                state.scratch,
            ],
            received: state.in_buffer,
        }
    }
}

impl From<&SerialState> for UartState {
    fn from(state: &SerialState) -> Self {
        let [low, high, enable, identification, rest @ ..] = state.registers;
        let [
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
        ] = rest;
        Self {
            baud_divisor_low: low,
            baud_divisor_high: high,
            interrupt_enable: enable,
            interrupt_identification: identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer: state.received.clone(),
        }
    }
}

/// Bit of the interrupt identification register (16550).
const NONE_PENDING: u8 = 1;

/// The port itself, as the guest sees it.
pub struct Serial {
    wires: Arc<Mutex<Wires>>,
    /// Apart from the wires: who feeds the port should not wait for whoever reads from it.
    outlet: Outlet,
}

/// The port without its output, shared with whoever feeds its [input](SerialInput).
struct Wires {
    /// What is sent is taken out at once.
    uart: Uart<Line, NoEvents, Vec<u8>>,
    sent: LastOutput,
    input_wanted: Arc<Event>,
    starved: bool,
    complaints: Complaints,
}

impl Serial {
    /// A port that raises `interrupt`, and signals `input_wanted` when it can take input again after it could not.
    pub fn new(interrupt: Event, outlet: Outlet, input_wanted: Arc<Event>) -> Self {
        let wires = Wires {
            uart: Uart::new(Line(interrupt), Vec::new()),
            sent: LastOutput::default(),
            input_wanted,
            starved: false,
            complaints: Complaints::new(),
        };
        let wires = Arc::new(Mutex::new(wires));
        Self { wires, outlet }
    }

    /// What its registers hold.
    pub fn state(&self) -> SerialState {
        lock(&self.wires).uart.state().into()
    }

    /// Has its registers hold that. An interrupt that it is about comes [again](Self::again).
    ///
    /// # Errors
    /// When more has come than the port can hold, or the host gives no event.
    pub fn take_up(&mut self, state: &SerialState) -> io::Result<()> {
        let mut wires = lock(&self.wires);
        let line = wires.uart.interrupt_evt().0.try_clone()?;
        let uart = Uart::from_state(&state.into(), Line(line), NoEvents, Vec::new());
        wires.uart = uart.map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(())
    }

    /// Interrupts for what its registers say, which another port may have done on whose way it was lost.
    pub fn again(&self) {
        let wires = lock(&self.wires);
        let pending = wires.uart.state().interrupt_identification & NONE_PENDING == 0;
        if pending {
            wires.uart.interrupt_evt().0.signal();
        }
    }

    /// The outside of the port.
    pub fn input(&self) -> SerialInput {
        let wanted = lock(&self.wires).input_wanted.clone();
        let wires = self.wires.clone();
        SerialInput { wires, wanted }
    }

    /// Writes output that nobody waited for.
    pub fn drain(&mut self) {
        self.outlet.drain();
    }

    /// Drops such output, and tells of it.
    pub fn give_up(&mut self) {
        self.outlet.give_up();
    }

    /// Has some of the output not been written, nor will be?
    pub fn has_lost(&self) -> bool {
        self.outlet.has_lost()
    }
}

impl Wires {
    /// Bytes that the guest would take now. A driver that starts up empties the FIFO before it raises RTS, so
    /// what is sent earlier would be lost. What comes while it tests its port in a loop waits, too.
    fn room(&mut self) -> usize {
        match self.uart.read(MODEM_CONTROL) & (REQUEST_TO_SEND | LOOP) {
            REQUEST_TO_SEND => self.uart.fifo_capacity(),
            _ => 0,
        }
    }

    fn is_open(&mut self) -> bool {
        self.uart.read(MODEM_CONTROL) & REQUEST_TO_SEND != 0
    }

    fn call_for_input(&mut self) {
        if self.starved && self.room() > 0 {
            self.starved = false;
            self.input_wanted.signal();
        }
    }

    /// An interrupt that fails does not stop a guest.
    fn note(&mut self, result: Result<(), Error<io::Error>>) {
        if let Err(Error::Trigger(error)) = result {
            let what = format_args!("serial interrupt was not raised: {error}");
            self.complaints.warn(what);
        }
    }
}

impl Device for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let mut wires = lock(&self.wires);
        match data {
            [byte] => *byte = wires.uart.read(offset as u8),
            _ => data.fill(0xff),
        }
        wires.call_for_input();
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        if let [byte] = data {
            let mut wires = lock(&self.wires);
            let result = wires.uart.write(offset as u8, *byte);
            wires.note(result);
            wires.call_for_input();
            let sent = wires.uart.writer_mut().pop();
            if let Some(byte) = sent {
                wires.sent.put(byte);
            }
            drop(wires);
            if let Some(byte) = sent {
                self.outlet.put(&[byte]);
            }
        }
        Action::None
    }
}

/// The outside of the port: where input goes in, and what can be told of it.
#[derive(Clone)]
pub struct SerialInput {
    wires: Arc<Mutex<Wires>>,
    wanted: Arc<Event>,
}

impl SerialInput {
    /// Hands bytes to the guest and returns how many it took: none while it has not raised "request to
    /// send". When that is fewer than given, the [event](Self::wanted) is signalled as soon as it takes more.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let mut wires = lock(&self.wires);
        let room = wires.room().min(bytes.len());
        if room < bytes.len() {
            wires.starved = true;
        }
        if room == 0 {
            return 0;
        }
        match wires.uart.enqueue_raw_bytes(&bytes[..room]) {
            Ok(taken) => taken,
            // They are in the FIFO all the same.
            Err(error) => {
                wires.note(Err(error));
                room
            }
        }
    }

    /// Is it open in the guest, that is, has a driver raised "request to send"?
    pub fn is_open(&self) -> bool {
        lock(&self.wires).is_open()
    }

    /// Has the guest written anything?
    pub fn has_written(&self) -> bool {
        !lock(&self.wires).sent.is_empty()
    }

    /// The [last lines](LastOutput::lines) that the guest has written, whether or not they could be passed on.
    pub fn last_lines(&self) -> Vec<String> {
        lock(&self.wires).sent.lines()
    }

    /// Becomes readable when the port has room again after [`send`](Self::send) could not place everything.
    pub fn wanted(&self) -> &Event {
        &self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::outlet::Recall;
    use std::io::Write;
    use std::sync::mpsc::{Sender, channel};

    const DATA: u64 = 0;
    const INTERRUPT_ENABLE: u64 = 1;
    const LINE_STATUS: u64 = 5;

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

    fn port(output: impl Write + Send + 'static) -> (Arc<Mutex<Serial>>, Event) {
        let interrupt = Event::new().unwrap();
        let wanted = Arc::new(Event::new().unwrap());
        let outlet = Outlet::new(Box::new(output), Recall::default());
        let serial = Serial::new(interrupt.try_clone().unwrap(), outlet, wanted);
        (Arc::new(Mutex::new(serial)), interrupt)
    }

    #[test]
    fn output_goes_to_the_writer_and_survives_its_end() {
        let (sender, receiver) = channel();
        let (serial, _) = port(Wire(sender));
        let _ = serial.lock().unwrap().write(DATA, b"A");
        assert_eq!(receiver.recv().unwrap(), b'A');
        drop(receiver);
        assert!(!serial.lock().unwrap().has_lost());
        assert_eq!(serial.lock().unwrap().write(DATA, b"B"), Action::None);
        let serial = serial.lock().unwrap();
        assert!(serial.has_lost());
        assert_eq!(serial.input().last_lines(), ["AB"]);
    }

    #[test]
    fn input_raises_the_interrupt_and_asks_for_more() {
        let (serial, interrupt) = port(io::sink());
        let _ = serial.lock().unwrap().write(INTERRUPT_ENABLE, &[1]);
        let input = serial.lock().unwrap().input();
        let text = [b'x'; 100];
        assert_eq!(input.send(&text), 0, "not ready to receive");
        let _ = serial
            .lock()
            .unwrap()
            .write(MODEM_CONTROL.into(), &[REQUEST_TO_SEND]);
        assert_eq!(input.wanted().take(), 1);
        let taken = input.send(&text);
        assert!(taken > 0 && taken < text.len(), "{taken}");
        assert_eq!(interrupt.take(), 1);
        assert_eq!(input.wanted().take(), 0, "no room yet");
        let mut byte = [0];
        serial.lock().unwrap().read(DATA, &mut byte);
        assert_eq!(byte, *b"x");
        assert_eq!(input.wanted().take(), 1);
        assert_eq!(input.send(&text), 1);
    }

    /// As Linux does when it looks what kind of port it has.
    #[test]
    fn what_is_typed_while_the_port_is_in_a_loop_waits() {
        let (serial, _) = port(io::sink());
        let modem_control = |value: u8| {
            let mut serial = serial.lock().unwrap();
            let _ = serial.write(MODEM_CONTROL.into(), &[value]);
        };
        let input = serial.lock().unwrap().input();
        modem_control(LOOP | REQUEST_TO_SEND);
        assert_eq!(input.send(b"x"), 0);
        assert_eq!(input.wanted().take(), 0);
        modem_control(REQUEST_TO_SEND);
        assert_eq!(input.wanted().take(), 1);
        assert_eq!(input.send(b"x"), 1);
    }

    #[test]
    fn wide_accesses_are_harmless() {
        let (serial, _) = port(io::sink());
        let mut data = [0; 4];
        serial.lock().unwrap().read(LINE_STATUS, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(serial.lock().unwrap().write(DATA, &[1, 2]), Action::None);
    }
}
