//! The buses of a VM with everything on them, and the ends that the outside holds.

use super::error::Error;
use super::irq::{self, GsiRouter, Routes};
use super::pci_slots::PciSlots;
use super::power_button::PowerButton;
use super::slots::{SharedTransport, Slots};
use crate::arch::x86_64::acpi::MmioSlot;
use crate::arch::x86_64::address_map as map;
use crate::config::{Interface, Memory, NetworkSpec, Overlay, VmConfig};
use crate::devices::boot_timer::{BootTimer, Ready};
use crate::devices::generation::Generation;
use crate::devices::i8042::I8042;
use crate::devices::ioapic::{self, Ioapic};
use crate::devices::outlet::Outlet;
use crate::devices::pci::ConfigPorts;
use crate::devices::power::Power;
use crate::devices::pvpanic::Pvpanic;
use crate::devices::serial::{self, Serial, SerialInput};
use crate::devices::virtio::balloon::{BalloonHandle, BalloonSpec};
use crate::devices::virtio::block::{self, BlockHandle, DiskSpec};
use crate::devices::virtio::net::{NetHandle, NetParams, NetSpec, Port};
use crate::devices::virtio::rng::{RngHandle, RngSpec};
use crate::devices::virtio::vsock::{HostSide, VsockHandle, VsockSpec};
use crate::devices::{Bus, Device};
use crate::disk::{GuestMount, make_ext4};
use crate::memory::GuestRam;
use kvm_ioctls::VmFd;
use kvmlet_sys::event::Event;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The longest that a disk's thread, or an interface's, looks for requests before it sleeps: what it takes to wake it, some times over.
const MOST_POLLED: Duration = Duration::from_micros(50);

/// The far end of a network interface: a tap's queues, for example.
#[derive(Clone)]
pub struct Endpoint {
    /// One for each pair of queues that the configuration asks for.
    pub ports: Vec<Arc<dyn Port>>,
    /// What the guest is told.
    pub interface: Interface,
}

/// What the devices of a VM are connected to.
#[derive(Clone, Default)]
pub struct FarEnds {
    /// One for each network interface.
    pub interfaces: Vec<Endpoint>,
    /// Who has the host's sockets, if the guest can have some.
    pub sockets: Option<Arc<dyn HostSide>>,
}

impl From<Vec<Endpoint>> for FarEnds {
    fn from(interfaces: Vec<Endpoint>) -> Self {
        Self {
            interfaces,
            sockets: None,
        }
    }
}

pub(super) struct Devices {
    pub ports: Bus,
    pub mmio: Bus,
    pub slots: Vec<MmioSlot>,
    pub serial: Arc<Mutex<Serial>>,
    pub power_button: PowerButton,
    pub power: Arc<Mutex<Power>>,
    pub generation: Arc<Mutex<Generation>>,
    pub transports: Vec<SharedTransport>,
    /// The way to their functions, if they are on a PCI bus.
    pub pci: Option<Arc<Mutex<ConfigPorts>>>,
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
    pub vsock: Option<VsockHandle>,
}

impl Devices {
    /// Builds everything. The interrupt controller is split here, so memory is registered by now, and
    /// vCPUs come later.
    pub fn build(
        fd: &Arc<VmFd>,
        ram: &GuestRam,
        config: &VmConfig,
        far_ends: FarEnds,
        outlet: Outlet,
    ) -> Result<Self, Error> {
        irq::enable_split_irqchip(fd)?;
        let (mut ports, mut mmio) = (Bus::default(), Bus::default());

        // The I/O APIC's id follows those of the local APICs.
        let routes = Routes::new(fd.clone());
        let router = GsiRouter(routes.clone());
        let ioapic = Arc::new(Mutex::new(Ioapic::new(config.vcpus.get(), router)));
        mmio.insert(map::IOAPIC, ioapic::BYTES, ioapic.clone())?;

        let wanted = Arc::new(event("an event for console input")?);
        let serial = Serial::new(irq::connect(fd, map::COM1_IRQ)?, outlet, wanted);
        let console = serial.input();
        let serial = Arc::new(Mutex::new(serial));
        ports.insert(map::COM1.into(), serial::PORTS, serial.clone())?;
        ports.insert(map::I8042.into(), I8042::PORTS, shared(I8042))?;
        ports.insert(map::PVPANIC.into(), 1, shared(Pvpanic))?;
        let power = Arc::new(Mutex::new(Power::default()));
        ports.insert(map::POWER.into(), Power::PORTS, power.clone())?;
        let generation = Arc::new(Mutex::new(Generation::default()));
        let port = map::GENERATION_PORT.into();
        ports.insert(port, Generation::PORTS, generation.clone())?;

        let ready = Ready::default();
        let timer = BootTimer::new(ready.clone());
        mmio.insert(map::BOOT_TIMER, BootTimer::BYTES, shared(timer))?;

        let pci = config.pci.then(|| PciSlots::new(fd.clone(), routes));
        let mut slots = Slots::new(fd, ram, &mut mmio, pci);
        let handles = Handles {
            console,
            ready,
            entropy: (config.rng.then(|| slots.add(RngSpec::default()))).transpose()?,
            disks: slots.add_all(disks(config))?,
            interfaces: slots.add_all(interfaces(config, far_ends.interfaces))?,
            balloon: (balloon(config).map(|spec| slots.add(spec))).transpose()?,
            vsock: (vsock(config, far_ends.sockets).map(|spec| slots.add(spec))).transpose()?,
        };
        let Slots {
            taken: slots,
            transports,
            pci,
            ..
        } = slots;
        let pci = pci.map(|pci| pci.connect(&mut ports, &mut mmio));
        let power_button = PowerButton::new(ioapic, fd.clone());
        Ok(Self {
            ports,
            mmio,
            slots,
            serial,
            power_button,
            power,
            generation,
            transports,
            pci: pci.transpose()?,
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

/// How long the thread of a queue looks for requests.
fn poll(config: &VmConfig) -> Duration {
    // A share of the CPUs is the guest's to use.
    match config.poll && config.quota.cpu.is_none() {
        true => MOST_POLLED,
        false => Duration::ZERO,
    }
}

fn disks(config: &VmConfig) -> impl Iterator<Item = DiskSpec<'_>> {
    let poll = poll(config);
    let disks = config.disks.iter().enumerate();
    disks.map(move |(index, disk)| DiskSpec {
        disk,
        index,
        mount: guest_mount(config, index),
        poll,
    })
}

fn interfaces(config: &VmConfig, endpoints: Vec<Endpoint>) -> impl Iterator<Item = NetSpec> {
    let poll = poll(config);
    let nets = config.nets.iter().zip(endpoints).enumerate();
    nets.map(move |(index, (net, endpoint))| NetSpec {
        params: NetParams {
            name: interface_name(index),
            mac: endpoint.interface.mac,
            mtu: endpoint.interface.mtu,
            receive_limit: net.rx,
            transmit_limit: net.tx,
            poll,
            vhost: net.vhost,
        },
        ports: endpoint.ports,
    })
}

fn vsock(config: &VmConfig, host: Option<Arc<dyn HostSide>>) -> Option<VsockSpec> {
    let guest_cid = config.vsock.as_ref()?.cid.get();
    host.map(|host| VsockSpec { guest_cid, host })
}

fn balloon(config: &VmConfig) -> Option<BalloonSpec<'_>> {
    let memory = config.memory;
    let balloon = config.balloon.as_ref();
    balloon.map(|config| BalloonSpec { config, memory })
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
    let Some(path) = disk.source.path() else {
        return Ok(());
    };
    let there = make_ext4(path, size.bytes()).map_err(block::Error::from)?;
    if let Some(other) = there.filter(|bytes| *bytes != size.bytes()) {
        log::warn!(
            "scratch disk `{}` is there already, with {} and not {size}: only one that is made gets a size",
            path.display(),
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
#[doc(hidden)] // of `kvmlet-run`
pub fn network_specs(endpoints: &[Endpoint]) -> Vec<NetworkSpec> {
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
