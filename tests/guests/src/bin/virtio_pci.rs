//! Finds virtio devices on a PCI bus by its ports, puts the registers of each elsewhere, and reads and writes all disks with
//! the `virtio-drivers` crate's driver; then has the last one interrupt by messages, masked ones among them.
//!
//! Prints `functions=N`, `disk N: sectors=N first=BYTE` for each, and ends with 0, or says what is wrong.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::virtio::Identity;
use kvmlet_guests::{interrupts, lapic, pci, println};
use virtio_drivers::device::blk::{SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::DeviceFunction;
use virtio_drivers::transport::{DeviceType, Transport};

kvmlet_guests::program!(run);

type Disk = VirtIOBlk<Identity, PciTransport>;

/// Where registers are put: far from where they are.
const PLACES: u32 = 0xe800_0000;
/// More than a function has.
const DISTANCE: u32 = 0x1_0000;
/// The processor's vector for messages.
const VECTOR: u8 = 0x2a;

static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

fn run(_: &BootInfo) -> u8 {
    let mut last = None;
    let (mut functions, mut disks) = (0, 0);
    for function in pci::functions() {
        let transport = pci::transport(function, PLACES + functions * DISTANCE);
        functions += 1;
        if transport.device_type() == DeviceType::Block {
            let mut disk = open(transport);
            check(&mut disk, disks);
            disks += 1;
            last = Some((function, disk));
        }
    }
    println!("functions={functions}");
    if let Some((function, mut disk)) = last {
        interrupt(function, &mut disk);
    }
    0
}

fn open(transport: PciTransport) -> Disk {
    match Disk::new(transport) {
        Ok(disk) => disk,
        Err(error) => panic!("a disk that does not start: {error}"),
    }
}

/// Reads, and writes what it reads back.
fn check(disk: &mut Disk, number: u32) {
    let first = read(disk);
    println!(
        "disk {number}: sectors={} first={}",
        disk.capacity(),
        first[0]
    );
    if disk.readonly() {
        return;
    }
    let mut changed = first;
    changed.iter_mut().for_each(|byte| *byte ^= 0x5a);
    for content in [changed, first] {
        assert!(disk.write_blocks(0, &content).is_ok(), "a write failed");
        assert!(read(disk) == content, "it reads back differently");
    }
}

fn read(disk: &mut Disk) -> [u8; SECTOR_SIZE] {
    let mut sector = [0; SECTOR_SIZE];
    assert!(disk.read_blocks(0, &mut sector).is_ok(), "a read failed");
    sector
}

/// Messages for answers, and for those that came while it was masked one when it is not any more. Not each answer has one:
/// this driver looks for it all the time, and a device that is held up on its way finds that it has been seen.
fn interrupt(function: DeviceFunction, disk: &mut Disk) {
    fn count() {
        INTERRUPTS.store(INTERRUPTS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
    let seen = || INTERRUPTS.load(Ordering::Relaxed);
    lapic::enable();
    interrupts::set_handler(VECTOR, count);
    let messages = pci::Messages::enable(function);
    pci::set_queue_vector(function, 0, 0);
    messages.route(0, VECTOR, false);
    interrupts::enable();
    while seen() < 3 {
        read(disk);
    }
    messages.route(0, VECTOR, true);
    let before = seen();
    while !messages.is_pending(0) {
        read(disk);
    }
    assert!(seen() == before, "a masked message came");
    messages.route(0, VECTOR, false);
    while seen() == before {
        core::hint::spin_loop();
    }
    assert!(!messages.is_pending(0), "what came is not pending");
    println!("interrupts came");
}
