//! The buses of a VM with everything on them, and the ends that the outside holds.

use super::error::Error;
use super::irq::{self, GsiRouter};
use super::power_button::PowerButton;
use crate::arch::x86_64::acpi::MmioSlot;
use crate::arch::x86_64::address_map as map;
use crate::config::{Interface, Memory, Net, NetworkSpec, Overlay, VmConfig};
use crate::devices::boot_timer::{BootTimer, Ready};
use crate::devices::i8042::I8042;
use crate::devices::ioapic::{self, Ioapic};
use crate::devices::outlet::Outlet;
use crate::devices::power::Power;
use crate::devices::pvpanic::Pvpanic;
use crate::devices::serial::{self, Serial, SerialInput};
use crate::devices::virtio::balloon::{BalloonDevice, BalloonHandle};
use crate::devices::virtio::block::{self, BlockDevice, BlockHandle};
use crate::devices::virtio::net::{NetDevice, NetHandle, NetParams, Port};
use crate::devices::virtio::rng::{Rng, RngHandle};
use crate::devices::virtio::{
    Doorbell, MMIO_BYTES, MmioTransport, QUEUE_NOTIFY_OFFSET, Transport, VirtioDevice,
};
use crate::devices::{Bus, Device};
use crate::disk::{GuestMount, make_ext4};
use crate::memory::GuestRam;
use kvm_ioctls::{IoEventAddress, VmFd};
use kvmlet_sys::event::Event;
use std::io;
use std::sync::{Arc, Mutex};

/// First I/O APIC pin for virtio devices; the ones before it belong to the PC's own devices.
const FIRST_VIRTIO_IRQ: u32 = 5;

/// The far end of a network interface: a tap's queues, for example.
#[derive(Clone)]
pub struct Endpoint {
    /// One for each pair of queues that the configuration asks for.
    pub ports: Vec<Arc<dyn Port>>,
    /// What the guest is told.
    pub interface: Interface,
}

pub(super) struct Devices {
    pub ports: Bus,
    pub mmio: Bus,
    pub slots: Vec<MmioSlot>,
    pub serial: Arc<Mutex<Serial>>,
    pub power_button: PowerButton,
    pub transports: Vec<SharedTransport>,
    pub handles: Handles,
}

/// What the outside holds of a VM's devices.
pub(super) struct Handles {
    pub console: SerialInput,
    pub ready: Ready,
    pub entropy: Option<RngHandle>,
    pub disks: Vec<BlockHandle>,
    pub interfaces: Vec<NetHandle>,
    pub balloon: Option<BalloonHandle>,
}

/// A virtio device behind its registers, of whatever kind they are.
pub(super) type SharedTransport = Arc<Mutex<dyn Transport>>;

impl Devices {
    /// Builds everything. The interrupt controller is split here, so memory is registered by now, and
    /// vCPUs come later.
    pub fn build(
        fd: &Arc<VmFd>,
        ram: &GuestRam,
        config: &VmConfig,
        endpoints: Vec<Endpoint>,
        outlet: Outlet,
    ) -> Result<Self, Error> {
        irq::enable_split_irqchip(fd)?;
        let (mut ports, mut mmio) = (Bus::default(), Bus::default());

        // The I/O APIC's id follows those of the local APICs.
        let ioapic = Arc::new(Mutex::new(Ioapic::new(
            config.vcpus.get(),
            GsiRouter::new(fd.clone()),
        )));
        mmio.insert(map::IOAPIC, ioapic::BYTES, ioapic.clone())?;

        let wanted = Arc::new(event("an event for console input")?);
        let serial = Serial::new(irq::connect(fd, map::COM1_IRQ)?, outlet, wanted);
        let mut handles = Handles::new(serial.input());
        let serial = Arc::new(Mutex::new(serial));
        ports.insert(map::COM1.into(), serial::PORTS, serial.clone())?;
        ports.insert(map::I8042.into(), I8042::PORTS, shared(I8042))?;
        ports.insert(map::PVPANIC.into(), 1, shared(Pvpanic))?;
        ports.insert(map::POWER.into(), Power::PORTS, shared(Power::default()))?;

        mmio.insert(
            map::BOOT_TIMER,
            BootTimer::BYTES,
            shared(BootTimer::new(handles.ready.clone())),
        )?;

        let (mut slots, mut transports) = (Vec::new(), Vec::new());
        for device in handles.build_virtio(config, endpoints)? {
            let (slot, transport) = place(fd, ram, &mut mmio, slots.len(), device)?;
            slots.push(slot);
            transports.push(transport);
        }
        let power_button = PowerButton::new(ioapic, fd.clone());
        Ok(Self {
            ports,
            mmio,
            slots,
            serial,
            power_button,
            transports,
            handles,
        })
    }
}

fn shared(device: impl Device + 'static) -> Arc<Mutex<dyn Device>> {
    Arc::new(Mutex::new(device))
}

/// An event that wakes a poller.
pub(super) fn event(what: &'static str) -> Result<Event, Error> {
    Event::new().map_err(|source| Error::Host { what, source })
}

impl Handles {
    /// Those of the devices that every VM has.
    fn new(console: SerialInput) -> Self {
        Self {
            console,
            ready: Ready::default(),
            entropy: None,
            disks: Vec::new(),
            interfaces: Vec::new(),
            balloon: None,
        }
    }

    /// Builds the virtio devices, in the order of their addresses, which is the order in which guests name them.
    fn build_virtio(
        &mut self,
        config: &VmConfig,
        endpoints: Vec<Endpoint>,
    ) -> Result<Vec<Box<dyn VirtioDevice>>, Error> {
        let mut devices: Vec<Box<dyn VirtioDevice>> = Vec::new();
        if config.rng {
            let rng = Rng::new().map_err(|source| Error::Host {
                what: "events for the entropy source",
                source,
            })?;
            self.entropy = Some(rng.handle());
            devices.push(Box::new(rng));
        }
        for (index, disk) in config.disks.iter().enumerate() {
            let (device, handle) =
                BlockDevice::open_to_mount(disk, index, guest_mount(config, index))?;
            devices.push(Box::new(device));
            self.disks.push(handle);
        }
        for (index, (net, endpoint)) in config.nets.iter().zip(endpoints).enumerate() {
            let (device, handle) = build_interface(net, endpoint, index)?;
            devices.push(Box::new(device));
            self.interfaces.push(handle);
        }
        if let Some(wanted) = &config.balloon {
            let (device, handle) =
                BalloonDevice::new(wanted, config.memory).map_err(|source| Error::Host {
                    what: "an event for the balloon",
                    source,
                })?;
            devices.push(Box::new(device));
            self.balloon = Some(handle);
        }
        Ok(devices)
    }
}

/// What the guest's init is to mount a disk as, by the name that guests give to it.
fn guest_mount(config: &VmConfig, index: usize) -> Option<GuestMount> {
    let root = config.guest.root.as_ref()?;
    let letter = char::from(b'a' + u8::try_from(index).ok().filter(|index| *index < 26)?);
    let name = format!("/dev/vd{letter}");
    let is_scratch = matches!(&root.overlay, Some(Overlay::Device(device)) if *device == name);
    match is_scratch {
        true => Some(GuestMount::Scratch),
        false => (root.device == name).then_some(GuestMount::Root),
    }
}

/// Makes the disk that keeps the changes of the root, where a size is given and there is none of its name.
///
/// # Errors
/// Names the disk, and why it cannot be made.
pub fn make_scratch(config: &VmConfig) -> Result<(), Error> {
    let Some(size) = config.scratch_size else {
        return Ok(());
    };
    let disks = config.disks.iter().enumerate();
    let mut scratch =
        disks.filter(|(index, _)| guest_mount(config, *index) == Some(GuestMount::Scratch));
    let Some((_, disk)) = scratch.next() else {
        return Ok(());
    };
    let there = make_ext4(&disk.path, size.bytes()).map_err(block::Error::from)?;
    if let Some(other) = there.filter(|bytes| *bytes != size.bytes()) {
        log::warn!(
            "scratch disk `{}` is there already, with {} and not {size}: only one that is made gets a size",
            disk.path.display(),
            Memory::from_bytes(other)
        );
    }
    Ok(())
}

/// The name by which a guest knows its interface of that number.
fn interface_name(index: usize) -> String {
    format!("eth{index}")
}

/// What the guest's init is to do with its interfaces, where kvmlet has chosen the addresses.
pub(super) fn network_specs(endpoints: &[Endpoint]) -> Vec<NetworkSpec> {
    let spec = |(index, endpoint): (usize, &Endpoint)| {
        let guest = endpoint.interface.guest.as_ref()?;
        Some(NetworkSpec {
            interface: interface_name(index),
            address: guest.address.into(),
            prefix: guest.prefix,
            gateway: Some(guest.gateway.into()),
            dns: guest.dns.iter().map(|server| (*server).into()).collect(),
            mtu: None,
        })
    };
    endpoints.iter().enumerate().filter_map(spec).collect()
}

fn build_interface(
    config: &Net,
    endpoint: Endpoint,
    index: usize,
) -> Result<(NetDevice, NetHandle), Error> {
    let params = NetParams {
        name: interface_name(index),
        mac: endpoint.interface.mac,
        mtu: endpoint.interface.mtu,
        receive_limit: config.rx,
        transmit_limit: config.tx,
    };
    NetDevice::new(params, endpoint.ports).map_err(|source| Error::Host {
        what: "events for a network interface",
        source,
    })
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

/// Puts a virtio device into the next slot: registers on the bus, a line to a pin, and a short cut for
/// notifications, so that they reach the device's worker without an exit to this process.
fn place(
    fd: &Arc<VmFd>,
    ram: &GuestRam,
    mmio: &mut Bus,
    index: usize,
    device: Box<dyn VirtioDevice>,
) -> Result<(MmioSlot, SharedTransport), Error> {
    let address = map::VIRTIO_MMIO + index as u64 * MMIO_BYTES;
    let irq = FIRST_VIRTIO_IRQ + index as u32;
    if irq as usize >= map::IOAPIC_PINS {
        let limit = map::IOAPIC_PINS - FIRST_VIRTIO_IRQ as usize;
        return Err(Error::DeviceLimit { limit });
    }
    let line = irq::connect(fd, irq)?;
    let doorbell = IoEvents {
        fd: fd.clone(),
        address: address + QUEUE_NOTIFY_OFFSET,
    };
    let transport = MmioTransport::new(device, ram.clone(), line)
        .map_err(|source| Error::Host {
            what: "events for a device's queues",
            source,
        })?
        .with_doorbell(Box::new(doorbell));
    let transport = Arc::new(Mutex::new(transport));
    mmio.insert(address, MMIO_BYTES, transport.clone())?;
    let slot = MmioSlot {
        address,
        bytes: MMIO_BYTES as u32,
        irq,
    };
    Ok((slot, transport))
}
