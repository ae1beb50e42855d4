//! The PCI transport (virtio 1.2 §4.1): what a function of a PCI device is. Modern only, and interrupts come as messages, one
//! for each queue and one for changes, or not at all: a driver without them asks.

mod common;
mod messages;

use super::transport::{Doorbell, Session, Transport, TransportState, Unfit};
use super::{DeviceType, VirtioDevice};
use crate::devices::pci::{
    BAR_BYTES, ConfigSpace, Function, FunctionState, Identity, MessageLine, Msix,
};
use crate::devices::{Action, Device};
use crate::memory::GuestRam;
use messages::Messages;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Red Hat's number, which it lends to virtio (§4.1.2).
const VENDOR: u16 = 0x1af4;
/// Numbers of devices begin here.
const FIRST_DEVICE: u16 = 0x1040;

/// What is where among the registers, a page each.
const COMMON: u64 = 0x0000;
const ISR: u64 = 0x1000;
const CONFIG: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const VECTORS: u64 = 0x4000;
const PENDING: u64 = 0x5000;
const PAGE: u64 = 0x1000;
/// How far notifications of two queues are apart, in bytes.
const NOTIFY_STEP: u32 = 4;
/// As many vectors as have a place in the table.
const MOST_VECTORS: u64 = PAGE / 16;

/// Capabilities (§4.1.4, and PCI 3.0 §6.8.2).
const VENDOR_SPECIFIC: u8 = 0x09;
const MSIX: u8 = 0x11;
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;
/// Fields of the one through which registers are reached by configuration accesses, from where it begins.
const BAR_FIELD: usize = 4;
const OFFSET_FIELD: usize = 8;
const LENGTH_FIELD: usize = 12;
const DATA_FIELD: usize = 16;
/// In the control word of messages, two bytes behind the capability.
const ENABLED: u16 = 1 << 15;
const MASKED: u16 = 1 << 14;

/// Where a queue's notifications are written, beside the place of the registers; `NOWHERE` while they are nowhere.
pub const NOTIFY_OFFSET: u64 = NOTIFY;
/// The distance to the next queue's.
pub const NOTIFY_BYTES: u64 = NOTIFY_STEP as u64;
/// No place.
pub const NOWHERE: u64 = u64::MAX;

/// A function with one device.
pub struct PciTransport {
    session: Session,
    messages: Arc<Messages>,
    config: ConfigSpace,
    /// Where the capabilities are that do something.
    access: usize,
    msix: usize,
    /// Where the registers are, for the doorbell.
    place: Arc<AtomicU64>,
}

impl PciTransport {
    /// How many lines a device takes: one for each queue, and one for changes of its configuration.
    pub fn lines(device: &dyn VirtioDevice) -> usize {
        device.queue_sizes().len() + 1
    }

    /// Puts a device behind a function whose registers are at an address at first. It tells its driver by those
    /// [lines](Self::lines).
    ///
    /// # Errors
    /// When the host gives no events for its queues, or there are more lines than places for them.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestRam,
        lines: Vec<Box<dyn MessageLine>>,
        place: u32,
    ) -> io::Result<Self> {
        if lines.len() as u64 > MOST_VECTORS {
            return Err(io::Error::other(
                "the device has more queues than a function has messages",
            ));
        }
        let identity = identity(device.device_type());
        let messages = Arc::new(Messages::new(Msix::new(lines)));
        let mut config = ConfigSpace::of_function(identity, place);
        for (kind, at, more) in [
            (COMMON_CFG, COMMON, &[][..]),
            (NOTIFY_CFG, NOTIFY, &NOTIFY_STEP.to_le_bytes()),
            (ISR_CFG, ISR, &[]),
            (DEVICE_CFG, CONFIG, &[]),
        ] {
            config.add_capability(VENDOR_SPECIFIC, &structure(kind, at, PAGE, more));
        }
        let access = structure(PCI_CFG, 0, 0, &[0; 4]);
        let access = config.add_capability(VENDOR_SPECIFIC, &access);
        config.allow(access + BAR_FIELD, &[0xff]);
        config.allow(access + OFFSET_FIELD, &[0xff; 12]);
        let vectors = messages.msix.vectors();
        let mut content = (vectors - 1).to_le_bytes().to_vec();
        // Places in the first base address register, whose number is in the low bits.
        content.extend(
            [VECTORS as u32, PENDING as u32]
                .map(u32::to_le_bytes)
                .concat(),
        );
        let msix = config.add_capability(MSIX, &content);
        config.allow(msix + 2, &(ENABLED | MASKED).to_le_bytes());
        Ok(Self {
            session: Session::new(device, memory, messages.clone())?,
            messages,
            config,
            access,
            msix,
            place: Arc::new(AtomicU64::new(NOWHERE)),
        })
    }

    /// Spares notifications the way through the transport while the driver is ready. The doorbell is made with what tells
    /// where the registers are; it is disconnected while that changes.
    pub fn with_doorbell(mut self, make: impl FnOnce(Arc<AtomicU64>) -> Box<dyn Doorbell>) -> Self {
        self.session.set_doorbell(make(self.place.clone()));
        self
    }

    /// What a driver has written to the configuration space takes hold.
    fn follow_config(&mut self) {
        let place = self.config.place().unwrap_or(NOWHERE);
        if place != self.place.load(Ordering::Acquire) {
            let shared = &self.place;
            self.session
                .move_doorbell(|| shared.store(place, Ordering::Release));
        }
        let control = self.config.word(self.msix) >> 16;
        let is_set = |bit: u16| control & u32::from(bit) != 0;
        self.messages.switch(is_set(ENABLED), is_set(MASKED));
    }

    /// The registers that an access through the configuration space is about (§4.1.4.9).
    fn accessed(&self) -> Option<(u64, usize)> {
        let offset = self.config.word(self.access + OFFSET_FIELD);
        let length = self.config.word(self.access + LENGTH_FIELD);
        let in_first = self.config.word(self.access + BAR_FIELD) & 0xff == 0;
        let fits = matches!(length, 1 | 2 | 4)
            && offset.is_multiple_of(length)
            && u64::from(offset) < BAR_BYTES;
        (in_first && fits).then_some((offset.into(), length as usize))
    }

    fn touches_data(&self, offset: usize, bytes: usize) -> bool {
        let data = self.access + DATA_FIELD;
        offset < data + 4 && data < offset + bytes
    }
}

fn identity(kind: DeviceType) -> Identity {
    Identity {
        vendor: VENDOR,
        device: FIRST_DEVICE + kind as u16,
        class: match kind {
            DeviceType::Net => 0x02_0000,
            DeviceType::Block => 0x01_0000,
            // What has no class.
            DeviceType::Rng | DeviceType::Balloon | DeviceType::Socket => 0xff_0000,
        },
    }
}

/// What follows the link of a capability that tells where registers are (§4.1.4).
fn structure(kind: u8, offset: u64, bytes: u64, more: &[u8]) -> Vec<u8> {
    let mut content = vec![16 + more.len() as u8, kind, 0, 0, 0, 0];
    content.extend((offset as u32).to_le_bytes());
    content.extend((bytes as u32).to_le_bytes());
    content.extend(more);
    content
}

impl Function for PciTransport {
    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        if self.touches_data(offset, data.len())
            && let Some((register, bytes)) = self.accessed()
        {
            let mut value = [0; 4];
            self.read(register, &mut value[..bytes]);
            self.config.put(self.access + DATA_FIELD, &value);
        }
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config.write(offset, data);
        self.follow_config();
        if self.touches_data(offset, data.len())
            && let Some((register, bytes)) = self.accessed()
        {
            let value = self.config.word(self.access + DATA_FIELD).to_le_bytes();
            let _ = self.write(register, &value[..bytes]);
        }
    }

    fn place(&self) -> Option<u64> {
        self.config.place()
    }
}

impl Transport for PciTransport {
    fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    fn state(&mut self) -> TransportState {
        TransportState {
            selection: self.session.selection,
            interrupt_status: self.messages.status().into(),
            session: self.session.state(),
            function: Some(FunctionState {
                config: self.config.bytes().to_vec(),
                table: self.messages.msix.state(),
                vectors: self.messages.vectors(),
            }),
        }
    }

    fn take_up(&mut self, state: &TransportState) -> Result<(), Unfit> {
        let function = state.function.as_ref().ok_or(Unfit::Function)?;
        let messages = usize::from(self.messages.msix.vectors());
        let fits = function.config.len() == self.config.bytes().len()
            && function.table.len() == messages
            && function.vectors.len() == messages;
        if !fits {
            return Err(Unfit::Function);
        }
        self.session.take_up(&state.session)?;
        self.session.selection = state.selection;
        // What a driver cannot write is this function's own.
        self.config.write(0, &function.config);
        let status = state.interrupt_status as u8;
        self.messages.take_up(&function.vectors, status);
        self.messages.msix.take_up(&function.table);
        self.follow_config();
        Ok(())
    }
}

impl Device for PciTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let inner = offset % PAGE;
        match offset - inner {
            COMMON => self.read_common(inner, data),
            ISR if inner == 0 => data[0] = self.messages.take_status(),
            CONFIG => self.session.read_config(inner, data),
            VECTORS => self.messages.msix.read_table(inner, data),
            PENDING => self.messages.msix.read_pending(inner, data),
            _ => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        let inner = offset % PAGE;
        match offset - inner {
            COMMON => self.write_common(inner, data),
            CONFIG => self.session.write_config(inner, data),
            // Which queue it is, the place says as well as the value.
            NOTIFY if inner.is_multiple_of(NOTIFY_BYTES) => {
                self.session.notify((inner / NOTIFY_BYTES) as u32);
            }
            VECTORS => self.messages.msix.write_table(inner, data),
            _ => {}
        }
        Action::None
    }
}

#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
mod tests;
