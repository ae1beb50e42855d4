//! COM1, a 16550 at port 0x3f8, polled.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::port::{inb, outb};
use crate::{interrupts, ioapic, lapic};

/// First of COM1's eight ports: receive and transmit buffer.
pub const COM1: u16 = 0x3f8;
/// Interrupt enable register.
pub const IER: u16 = COM1 + 1;
/// FIFO control register (write).
pub const FCR: u16 = COM1 + 2;
/// Modem control register.
pub const MCR: u16 = COM1 + 4;
/// Line status register.
pub const LSR: u16 = COM1 + 5;

/// LSR: a received byte is waiting.
pub const LSR_DATA_READY: u8 = 0x01;
/// LSR: the transmit FIFO is empty.
pub const LSR_THR_EMPTY: u8 = 0x20;
/// COM1's pin of the IOAPIC, and the vector that [`on_input`] gives it.
pub const PIN: u32 = 4;
const INPUT_VECTOR: u8 = 0x24;
/// IER: interrupt when a byte has been received.
const IER_RECEIVED: u8 = 0x01;
/// MCR: DTR and RTS.
const MCR_READY: u8 = 0x03;
/// MCR: DTR, RTS and OUT2, which connects a PC's UART to its interrupt line.
const MCR_INTERRUPTS: u8 = 0x0b;
/// FCR: FIFOs on.
const FCR_ENABLE: u8 = 0x01;
/// Bytes that fit into an empty transmit FIFO.
const FIFO_BYTES: usize = 16;

/// Writes `bytes`, waiting for the transmitter once per FIFO fill: an exit costs up to
/// 70 µs on an interpreting host, so asking before each byte would double the time.
pub fn write(bytes: &[u8]) {
    static FIFO_ON: AtomicBool = AtomicBool::new(false);
    if !FIFO_ON.swap(true, Ordering::Relaxed) {
        outb(FCR, FCR_ENABLE);
    }
    for chunk in bytes.chunks(FIFO_BYTES) {
        while inb(LSR) & LSR_THR_EMPTY == 0 {
            core::hint::spin_loop();
        }
        for byte in chunk {
            outb(COM1, *byte);
        }
    }
}

/// Lets bytes come ("request to send"), and no interrupts.
pub fn take_input() {
    outb(MCR, MCR_READY);
}

/// The next received byte, if there is one.
pub fn try_read() -> Option<u8> {
    (inb(LSR) & LSR_DATA_READY != 0).then(|| inb(COM1))
}

/// Has `handler` called, while the CPU waits, when a byte has been received. Bytes that came before raise no
/// edge: look for them once more after this.
pub fn on_input(handler: fn()) {
    interrupts::set_handler(INPUT_VECTOR, handler);
    lapic::enable();
    ioapic::route_edge(PIN, INPUT_VECTOR, lapic::id());
    outb(MCR, MCR_INTERRUPTS);
    outb(IER, IER_RECEIVED);
}

/// COM1 as a target of `write!`.
pub struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write(text.as_bytes());
        Ok(())
    }
}

/// Prints formatted text on COM1.
#[macro_export]
macro_rules! print {
    ($($arguments:tt)*) => {{
        use core::fmt::Write as _;
        // Writing to the port cannot fail.
        let _ = write!($crate::serial::Serial, $($arguments)*);
    }};
}

/// Prints formatted text and a newline on COM1.
#[macro_export]
macro_rules! println {
    ($($arguments:tt)*) => { $crate::print!("{}\n", format_args!($($arguments)*)) };
}
