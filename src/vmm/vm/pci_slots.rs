//! Where virtio devices are put on a PCI bus: functions behind each other, each with messages of its own.

use super::error::Error;
use super::irq::{self, Routes};
use crate::arch::x86_64::address_map as map;
use crate::devices::Bus;
use crate::devices::pci::{
    BAR_BYTES, ConfigPorts, Functions, MOST_FUNCTIONS, MessageLine, PORTS, SharedFunction, Window,
};
use crate::devices::virtio::{Doorbell, NOTIFY_BYTES, NOTIFY_OFFSET, PciTransport, VirtioDevice};
use crate::memory::GuestRam;
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use kvmlet_sys::event::Event;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The functions of a machine.
pub(super) struct PciSlots {
    fd: Arc<VmFd>,
    routes: Arc<Routes>,
    functions: Vec<SharedFunction>,
}

impl PciSlots {
    pub fn new(fd: Arc<VmFd>, routes: Arc<Routes>) -> Self {
        Self {
            fd,
            routes,
            functions: Vec::new(),
        }
    }

    /// A function with registers in the window, a line for each of its messages, and a short cut for notifications.
    pub fn place(
        &mut self,
        device: Box<dyn VirtioDevice>,
        ram: &GuestRam,
    ) -> Result<Arc<Mutex<PciTransport>>, Error> {
        let number = self.functions.len();
        if number >= MOST_FUNCTIONS {
            let limit = MOST_FUNCTIONS;
            return Err(Error::DeviceLimit { limit });
        }
        let lines = (0..PciTransport::lines(&*device)).map(|_| {
            let line = irq::connect_message(&self.fd, &self.routes)?;
            Ok(Box::new(line) as Box<dyn MessageLine>)
        });
        let lines = lines.collect::<Result<Vec<_>, Error>>()?;
        let place = map::PCI_WINDOW + number as u64 * BAR_BYTES;
        let fd = self.fd.clone();
        let doorbell = |place| -> Box<dyn Doorbell> {
            Box::new(NotifyEvents {
                fd,
                place,
                connected: BTreeMap::new(),
            })
        };
        let transport = PciTransport::new(device, ram.clone(), lines, place as u32)
            .map_err(|source| Error::Host {
                what: "events for a device's queues",
                source,
            })?
            .with_doorbell(doorbell);
        let transport = Arc::new(Mutex::new(transport));
        self.functions.push(transport.clone());
        Ok(transport)
    }

    /// Puts the bus with all functions where a driver reaches it, and returns its ports.
    pub fn connect(
        self,
        ports: &mut Bus,
        mmio: &mut Bus,
    ) -> Result<Arc<Mutex<ConfigPorts>>, Error> {
        let functions = Arc::new(Functions::new(self.functions));
        let config = Arc::new(Mutex::new(ConfigPorts::new(functions.clone())));
        ports.insert(map::PCI_CONFIG.into(), PORTS, config.clone())?;
        let window = Window::new(functions, map::PCI_WINDOW);
        let window = Arc::new(Mutex::new(window));
        mmio.insert(map::PCI_WINDOW, map::PCI_WINDOW_BYTES, window)?;
        Ok(config)
    }
}

/// KVM's short cut for notifications of a function: an ioeventfd (api.rst, KVM_IOEVENTFD) for each queue's place, whatever
/// is written there.
struct NotifyEvents {
    fd: Arc<VmFd>,
    /// Where its registers are.
    place: Arc<AtomicU64>,
    /// Where queues are connected.
    connected: BTreeMap<u32, u64>,
}

impl Doorbell for NotifyEvents {
    fn connect(&mut self, queue: u32, event: &Event) -> io::Result<()> {
        let window = map::PCI_WINDOW..map::PCI_WINDOW + map::PCI_WINDOW_BYTES;
        let place = self.place.load(Ordering::Acquire);
        // Elsewhere there is nothing to be notified, until it is put where it is reached.
        if !window.contains(&place) {
            return Ok(());
        }
        let at = place + NOTIFY_OFFSET + u64::from(queue) * NOTIFY_BYTES;
        let address = IoEventAddress::Mmio(at);
        self.fd
            .register_ioevent(event.for_kvm(), &address, NoDatamatch)?;
        self.connected.insert(queue, at);
        Ok(())
    }

    fn disconnect(&mut self, queue: u32, event: &Event) {
        let Some(at) = self.connected.remove(&queue) else {
            return;
        };
        let address = IoEventAddress::Mmio(at);
        let undone = self
            .fd
            .unregister_ioevent(event.for_kvm(), &address, NoDatamatch);
        if let Err(error) = undone {
            log::debug!("an ioeventfd was not removed: {error}");
        }
    }
}
