//! Where virtio devices are put: registers behind each other, and a pin of the I/O APIC for each; or on a [PCI bus](super::pci_slots).

use super::error::Error;
use super::irq;
use super::pci_slots::PciSlots;
use crate::arch::x86_64::acpi::MmioSlot;
use crate::arch::x86_64::address_map as map;
use crate::devices::Bus;
use crate::devices::virtio::{
    DeviceSpec, Doorbell, MMIO_BYTES, MmioTransport, QUEUE_NOTIFY_OFFSET, Transport, VirtioDevice,
};
use crate::memory::GuestRam;
use kvm_ioctls::{IoEventAddress, VmFd};
use kvmlet_sys::event::Event;
use std::io;
use std::sync::{Arc, Mutex};

/// First I/O APIC pin for virtio devices; the ones before it belong to the PC's own devices.
const FIRST_VIRTIO_IRQ: u32 = 5;

/// A virtio device behind its registers, of whatever kind they are.
pub(super) type SharedTransport = Arc<Mutex<dyn Transport>>;

/// The slots of a machine, in the order of their addresses, which is the order in which guests name devices.
pub(super) struct Slots<'a> {
    fd: &'a Arc<VmFd>,
    ram: &'a GuestRam,
    bus: &'a mut Bus,
    /// Instead of registers at fixed addresses, and pins.
    pub pci: Option<PciSlots>,
    pub taken: Vec<MmioSlot>,
    pub transports: Vec<SharedTransport>,
}

impl<'a> Slots<'a> {
    pub fn new(
        fd: &'a Arc<VmFd>,
        ram: &'a GuestRam,
        bus: &'a mut Bus,
        pci: Option<PciSlots>,
    ) -> Self {
        Self {
            fd,
            ram,
            bus,
            pci,
            taken: Vec::new(),
            transports: Vec::new(),
        }
    }

    /// Makes a device of any kind and puts it into the next slot; returns what the outside holds of it.
    pub fn add<S: DeviceSpec>(&mut self, spec: S) -> Result<S::Handle, Error>
    where
        Error: From<S::Error>,
    {
        let (device, handle) = spec.build()?;
        self.place(Box::new(device))?;
        Ok(handle)
    }

    /// Makes as many devices.
    pub fn add_all<S: DeviceSpec>(
        &mut self,
        specs: impl Iterator<Item = S>,
    ) -> Result<Vec<S::Handle>, Error>
    where
        Error: From<S::Error>,
    {
        specs.map(|spec| self.add(spec)).collect()
    }

    /// Registers on the bus, a line to a pin, and a short cut for notifications, so that they reach the device's worker
    /// without an exit to this process.
    fn place(&mut self, device: Box<dyn VirtioDevice>) -> Result<(), Error> {
        if let Some(pci) = &mut self.pci {
            self.transports.push(pci.place(device, self.ram)?);
            return Ok(());
        }
        let index = self.taken.len();
        let address = map::VIRTIO_MMIO + index as u64 * MMIO_BYTES;
        let irq = FIRST_VIRTIO_IRQ + index as u32;
        if irq as usize >= map::IOAPIC_PINS {
            let limit = map::IOAPIC_PINS - FIRST_VIRTIO_IRQ as usize;
            return Err(Error::DeviceLimit { limit });
        }
        let line = irq::connect(self.fd, irq)?;
        let doorbell = IoEvents {
            fd: self.fd.clone(),
            address: address + QUEUE_NOTIFY_OFFSET,
        };
        let transport = MmioTransport::new(device, self.ram.clone(), line)
            .map_err(|source| Error::Host {
                what: "events for a device's queues",
                source,
            })?
            .with_doorbell(Box::new(doorbell));
        let transport = Arc::new(Mutex::new(transport));
        self.bus.insert(address, MMIO_BYTES, transport.clone())?;
        self.transports.push(transport);
        self.taken.push(MmioSlot {
            address,
            bytes: MMIO_BYTES as u32,
            irq,
        });
        Ok(())
    }
}

/// KVM's short cut for notifications: an ioeventfd (api.rst, KVM_IOEVENTFD).
struct IoEvents {
    fd: Arc<VmFd>,
    address: u64,
}

impl Doorbell for IoEvents {
    fn connect(&mut self, queue: u32, event: &Event) -> io::Result<()> {
        Ok(self
            .fd
            .register_ioevent(event.for_kvm(), &IoEventAddress::Mmio(self.address), queue)?)
    }

    fn disconnect(&mut self, queue: u32, event: &Event) {
        let undone =
            self.fd
                .unregister_ioevent(event.for_kvm(), &IoEventAddress::Mmio(self.address), queue);
        if let Err(error) = undone {
            log::debug!("an ioeventfd was not removed: {error}");
        }
    }
}
