//! A PCI bus by its ports (PCI Local Bus 3.0 §3.2.2.3.2), for the drivers of the `virtio-drivers` crate.

use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, DeviceFunctionInfo, PciRoot,
};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};

use crate::port::{inl, outl};
use crate::virtio::Identity;
use crate::{heap, mmio, println};

/// The port of addresses, and that of data.
const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
/// A capability for interrupts by messages, and the bit that switches them on.
const MSIX: u8 = 0x11;
const MSIX_ENABLE: u32 = 1 << 31;
/// Offsets of a function's only registers, in its configuration space.
const BAR: u8 = 0x10;
/// Base address registers of a function.
const BARS: u8 = 6;
/// Bytes of an entry of the table of messages, and what masks it.
const ENTRY_BYTES: u64 = 16;
const MASKED: u32 = 1;

/// The ports.
pub struct Ports;

impl Ports {
    fn select(function: DeviceFunction, offset: u8) {
        let DeviceFunction {
            bus,
            device,
            function,
        } = function;
        let place = u32::from(bus) << 16 | u32::from(device) << 11 | u32::from(function) << 8;
        outl(ADDRESS, 1 << 31 | place | u32::from(offset));
    }
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
        Self::select(function, offset);
        inl(DATA)
    }

    fn write_word(&mut self, function: DeviceFunction, offset: u8, data: u32) {
        Self::select(function, offset);
        outl(DATA, data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

/// All virtio functions on the bus, in order. Panics if there is none.
pub fn functions() -> impl Iterator<Item = DeviceFunction> {
    let found = PciRoot::new(Ports).enumerate_bus(0);
    found.filter_map(|(function, info)| virtio_device_type(&info).map(|_| function))
}

/// The first virtio function of a type, with its registers where they are. Panics if there is none.
pub fn device(kind: DeviceType) -> PciTransport {
    let mut root = PciRoot::new(Ports);
    let of_kind = |info: &DeviceFunctionInfo| virtio_device_type(info) == Some(kind);
    let found = root.enumerate_bus(0).find(|(_, info)| of_kind(info));
    let Some((function, _)) = found else {
        panic!("the PCI bus has no {kind:?}")
    };
    root.set_command(function, Command::MEMORY_SPACE | Command::BUS_MASTER);
    // Some are far above all memory.
    for bar in 0..BARS {
        if let Ok(Some(BarInfo::Memory { address, size, .. })) = root.bar_info(function, bar) {
            heap::map(address, address + size);
        }
    }
    open(&mut root, function)
}

/// Where a function's registers are.
pub fn registers(function: DeviceFunction) -> u64 {
    u64::from(Ports.read_word(function, BAR) & !0xf)
}

/// Switches a function on, after its registers were put at `place`, and drives it.
pub fn transport(function: DeviceFunction, place: u32) -> PciTransport {
    let mut root = PciRoot::new(Ports);
    root.set_bar_32(function, 0, place);
    root.set_command(function, Command::MEMORY_SPACE | Command::BUS_MASTER);
    open(&mut root, function)
}

fn open(root: &mut PciRoot<Ports>, function: DeviceFunction) -> PciTransport {
    match PciTransport::new::<Identity, _>(root, function) {
        Ok(transport) => transport,
        Err(error) => panic!("function {function} is no virtio device: {error}"),
    }
}

/// A function's messages: where their table is, and which are pending.
pub struct Messages {
    table: u64,
    pending: u64,
}

impl Messages {
    /// Switches them on. Panics if the function has none.
    pub fn enable(function: DeviceFunction) -> Self {
        let root = PciRoot::new(Ports);
        let mut all = root.capabilities(function);
        let Some(capability) = all.find(|capability| capability.id == MSIX) else {
            panic!("function {function} has no messages")
        };
        let at = capability.offset;
        let place = |offset| {
            let word = Ports.read_word(function, at + offset);
            assert!(word & 7 == 0, "in the first base address register");
            registers(function) + u64::from(word)
        };
        let control = Ports.read_word(function, at);
        println!("messages={}", (control >> 16 & 0x7ff) + 1);
        Ports.write_word(function, at, control | MSIX_ENABLE);
        Self {
            table: place(4),
            pending: place(8),
        }
    }

    /// Has a vector of the function interrupt the first processor by one of its own, unless it is masked.
    pub fn route(&self, vector: u64, to: u8, masked: bool) {
        let entry = self.table + ENTRY_BYTES * vector;
        // SAFETY: an entry of a function's table, which is no memory.
        unsafe {
            mmio::write32(entry, 0xfee0_0000);
            mmio::write32(entry + 4, 0);
            mmio::write32(entry + 8, to.into());
            mmio::write32(entry + 12, if masked { MASKED } else { 0 });
        }
    }

    /// Is a message of one of the first 64 vectors pending?
    pub fn is_pending(&self, vector: u32) -> bool {
        mmio::read64(self.pending) >> vector & 1 != 0
    }
}

/// Has a queue of a device interrupt by a vector of its function. Panics if it has no such.
pub fn set_queue_vector(function: DeviceFunction, queue: u16, vector: u16) {
    /// Of the common registers, which kvmlet has first (virtio 1.2 §4.1.4.3).
    const QUEUE_SELECT: u64 = 0x16;
    const QUEUE_VECTOR: u64 = 0x1a;
    let common = registers(function);
    // SAFETY: registers.
    unsafe {
        mmio::write16(common + QUEUE_SELECT, queue);
        mmio::write16(common + QUEUE_VECTOR, vector);
    }
    assert!(
        mmio::read16(common + QUEUE_VECTOR) == vector,
        "vector {vector} is refused"
    );
}
