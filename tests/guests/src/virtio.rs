//! What the `virtio-drivers` crate needs of its host: memory that devices reach, and a device
//! found by the command line.

use core::ptr::NonNull;

use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceStatus, DeviceType, SomeTransport, Transport};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::boot_info::BootInfo;
use crate::heap::take_pages;
use crate::{mmio, pci};

/// Registers and configuration space of one device (virtio 1.2 §4.2.2).
const DEVICE_BYTES: usize = 0x200;

/// Feature bits for every device (virtio 1.2 §6).
pub mod feature {
    /// Indirect descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Notification suppression by index.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// Not a legacy device.
    pub const VERSION_1: u64 = 1 << 32;
}

/// Memory is identity mapped, so an address is what a device needs.
pub struct Identity;

// SAFETY: pages come from the heap, zeroed and given out once; addresses are physical.
unsafe impl Hal for Identity {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let start = take_pages(pages as u64);
        let Some(pointer) = NonNull::new(start as *mut u8) else {
            panic!("the heap gave out address 0")
        };
        (start, pointer)
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0 // programs set up each queue once
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        let Some(pointer) = NonNull::new(address as *mut u8) else {
            panic!("a device at 0")
        };
        pointer
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// The device that the command line names by `mmio=ADDRESS`, or else the first of that type that it lists for Linux.
/// Panics, saying why, if there is none of the right type.
pub fn device(info: &BootInfo, kind: DeviceType) -> MmioTransport<'static> {
    let address = info.number("mmio").unwrap_or_else(|| listed(info, kind).0);
    device_at(address, kind)
}

/// The same, or with `bus=pci` the first of that type on the PCI bus.
pub fn device_on_any_bus(info: &BootInfo, kind: DeviceType) -> SomeTransport<'static> {
    match info.option("bus") {
        Some("pci") => pci::device(kind).into(),
        None => device(info, kind).into(),
        Some(other) => panic!("command line: bus={other} is no bus"),
    }
}

/// Address and interrupt pin of the first device of a type among those that the command line lists for Linux,
/// `virtio_mmio.device=4K@ADDRESS:PIN`. Panics if there is none.
pub fn listed(info: &BootInfo, kind: DeviceType) -> (u64, u32) {
    /// Where the registers say the type (virtio 1.2 §4.2.2).
    const DEVICE_ID: u64 = 8;
    let words = info.command_line.split_ascii_whitespace();
    let mut places = words.filter_map(|word| {
        let listed = word.strip_prefix("virtio_mmio.device=")?;
        let (address, pin) = listed.split_once("@0x")?.1.split_once(':')?;
        Some((u64::from_str_radix(address, 16).ok()?, pin.parse().ok()?))
    });
    match places.find(|(address, _)| mmio::read32(address + DEVICE_ID) == kind as u32) {
        Some(place) => place,
        None => panic!("the command line lists no {kind:?} device"),
    }
}

/// The device at an address. Panics, saying why, if there is none of the right type.
pub fn device_at(address: u64, kind: DeviceType) -> MmioTransport<'static> {
    let Some(header) = NonNull::new(address as *mut VirtIOHeader) else {
        panic!("command line: mmio=0 is no device")
    };
    // SAFETY: the devices' window is mapped for good, and programs open a device once.
    match unsafe { MmioTransport::new(header, DEVICE_BYTES) } {
        Ok(transport) if transport.device_type() == kind => transport,
        Ok(transport) => {
            panic!(
                "the device at {address:#x} is a {:?}, not {kind:?}",
                transport.device_type()
            )
        }
        Err(error) => panic!("no virtio device at {address:#x}: {error}"),
    }
}

/// Negotiates those of `wanted` that the device offers, for programs that drive their queues
/// themselves (virtio 1.2 §3.1.1, steps 1 to 6). The features agreed upon.
pub fn negotiate(transport: &mut impl Transport, wanted: u64) -> u64 {
    let found = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    transport.set_status(DeviceStatus::empty());
    // One after the other: Firecracker wants each step.
    transport.set_status(DeviceStatus::ACKNOWLEDGE);
    transport.set_status(found);
    let agreed = transport.read_device_features() & wanted;
    transport.write_driver_features(agreed);
    transport.set_status(found | DeviceStatus::FEATURES_OK);
    assert!(
        transport.get_status().contains(DeviceStatus::FEATURES_OK),
        "the device refuses features {agreed:#x}"
    );
    agreed
}

/// A queue of `SIZE` descriptors for the features agreed upon, without interrupts.
pub fn polled_queue<const SIZE: usize>(
    transport: &mut impl Transport,
    index: u16,
    features: u64,
) -> VirtQueue<Identity, SIZE> {
    let indirect = features & feature::INDIRECT_DESC != 0;
    let event_idx = features & feature::EVENT_IDX != 0;
    match VirtQueue::new(transport, index, indirect, event_idx) {
        Ok(mut queue) => {
            queue.set_dev_notify(false);
            queue
        }
        Err(error) => {
            let most = transport.max_queue_size(index);
            panic!("queue {index} of {SIZE} descriptors (the device allows {most}): {error}")
        }
    }
}

/// Features that a benchmark asks for: VERSION_1, indirect descriptors unless the command
/// line has `indirect=0`, event indices if it has `event_idx=1`.
pub fn benchmark_features(info: &BootInfo) -> u64 {
    let mut features = feature::VERSION_1;
    if info.number("indirect") != Some(0) {
        features |= feature::INDIRECT_DESC;
    }
    if info.number("event_idx") == Some(1) {
        features |= feature::EVENT_IDX;
    }
    features
}
