//! The MMIO transport, version 2 (virtio 1.2 §4.2).

mod line;
mod registers;

use super::VirtioDevice;
use super::transport::{Doorbell, Session, Transport, TransportState, Unfit};
use crate::devices::{Action, Device};
use crate::memory::GuestRam;
use kvmlet_sys::event::Event;
use line::Line;
use std::io;
use std::sync::Arc;

/// Size of a device's registers, in bytes.
pub const MMIO_BYTES: u64 = 0x1000;

/// Where a driver writes the number of a queue that it has filled; an ioeventfd spares the exit.
pub const QUEUE_NOTIFY_OFFSET: u64 = registers::QUEUE_NOTIFY;

/// The registers of one device.
pub struct MmioTransport {
    session: Session,
    line: Arc<Line>,
}

impl MmioTransport {
    /// Puts a device behind registers. It tells its driver of everything by raising `line`.
    ///
    /// # Errors
    /// When the host gives no events for its queues.
    pub fn new(device: Box<dyn VirtioDevice>, memory: GuestRam, line: Event) -> io::Result<Self> {
        let line = Arc::new(Line::new(line));
        Ok(Self {
            session: Session::new(device, memory, line.clone())?,
            line,
        })
    }

    /// Spares notifications the way through the transport while the driver is ready.
    pub fn with_doorbell(mut self, doorbell: Box<dyn Doorbell>) -> Self {
        self.session.set_doorbell(doorbell);
        self
    }
}

impl Transport for MmioTransport {
    fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    fn state(&mut self) -> TransportState {
        TransportState {
            selection: self.session.selection,
            interrupt_status: self.line.status(),
            session: self.session.state(),
            function: None,
        }
    }

    fn take_up(&mut self, state: &TransportState) -> Result<(), Unfit> {
        if state.function.is_some() {
            return Err(Unfit::Function);
        }
        self.session.take_up(&state.session)?;
        self.session.selection = state.selection;
        self.line.resume(state.interrupt_status);
        Ok(())
    }
}

impl Device for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= registers::CONFIG {
            self.session.read_config(offset - registers::CONFIG, data);
        } else if data.len() == 4 && offset.is_multiple_of(4) {
            // §4.2.2.2: registers are accessed by aligned 32-bit reads and writes only.
            data.copy_from_slice(&self.read_register(offset).to_le_bytes());
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        if offset >= registers::CONFIG {
            self.session.write_config(offset - registers::CONFIG, data);
        } else if let (true, Ok(bytes)) = (offset.is_multiple_of(4), data.try_into()) {
            self.write_register(offset, u32::from_le_bytes(bytes));
        }
        Action::None
    }
}

#[cfg(test)]
mod tests;
