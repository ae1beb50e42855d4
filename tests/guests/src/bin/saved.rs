//! Does work that shows whether anything of it was lost when its VM was saved and went on elsewhere. Never ends by itself.
//!
//! Each round it holds numbers in general and vector registers for a while, writes and reads back a block of a disk
//! (`mmio=ADDRESS`, or `pci=disk`, if there is one) and of memory (from `memory=ADDRESS` on), and waits for a timer of the local APIC; every tenth it prints `round=N hash=H`, where
//! the hash is over all numbers so far. With `cpus=N` it starts that CPU of its table of CPUs in round 20, 40 and so on, of
//! which each that has begun is counted in `started=`. With `timer=once` the timer is set anew in each round, which is little else: one interrupt that is lost, and it waits for ever. A disk on a PCI bus interrupts by messages, which are counted in `messages=`. What is wrong it prints, and ends with 1. `q` ends it with 0.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::heap::PAGE_BYTES;
use kvmlet_guests::mmio::{read64, write64};
use kvmlet_guests::{interrupts, lapic, pci, println, serial, smp, virtio};
use virtio_drivers::device::blk::{SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::{DeviceType, Transport};

kvmlet_guests::program!(run);

type Disk<T> = VirtIOBlk<virtio::Identity, T>;

const TIMER: u8 = 0x31;
const MESSAGE: u8 = 0x32;
/// Of the timer, which counts at 1 GHz or slower: a millisecond, and some.
const COUNT: u32 = 1 << 20;
/// Blocks of the disk that are written.
const BLOCKS: u64 = 64;
const PATIENCE: u64 = 100_000;

static TICKS: AtomicU64 = AtomicU64::new(0);
static MESSAGES: AtomicU64 = AtomicU64::new(0);
static QUIT: AtomicBool = AtomicBool::new(false);

fn run(info: &BootInfo) -> u8 {
    serial::on_input(listen);
    interrupts::set_handler(TIMER, tick);
    lapic::enable();
    if info.option("timer") != Some("once") {
        lapic::start_timer(TIMER, COUNT);
    }
    smp::prepare();
    let device = || virtio::device(info, DeviceType::Block);
    if info.option("pci").is_some() {
        return rounds(info, Some(on_a_bus()));
    }
    let disk = info.option("mmio").map(|_| Disk::new(device()));
    let Ok(disk) = disk.transpose() else {
        println!("failed: no disk");
        return 1;
    };
    rounds(info, disk)
}

/// The first disk of a PCI bus, which interrupts by messages.
fn on_a_bus() -> Disk<PciTransport> {
    /// Elsewhere than they are, and further apart than each is long.
    const PLACES: u32 = 0xe800_0000;
    const DISTANCE: usize = 0x1_0000;
    let places = (PLACES..).step_by(DISTANCE);
    let transports = pci::functions()
        .zip(places)
        .map(|(function, place)| (function, pci::transport(function, place)));
    let mut disks = transports.filter(|(_, device)| device.device_type() == DeviceType::Block);
    let Some((function, device)) = disks.next() else {
        panic!("no disk")
    };
    let Ok(disk) = Disk::new(device) else {
        panic!("a disk that does not start")
    };
    interrupts::set_handler(MESSAGE, || {
        MESSAGES.fetch_add(1, Ordering::Relaxed);
    });
    let messages = pci::Messages::enable(function);
    pci::set_queue_vector(function, 0, 0);
    messages.route(0, MESSAGE, false);
    disk
}

fn rounds<T: Transport>(info: &BootInfo, mut disk: Option<Disk<T>>) -> u8 {
    let memory = info.number("memory");
    let cpus = info.number("cpus").unwrap_or(1);
    let once = info.option("timer") == Some("once");
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for round in 1u64.. {
        hash = (hash ^ round).wrapping_mul(0x100_0000_01b3);
        if !once && !registers_keep(hash) {
            println!("failed: registers");
            return 1;
        }
        if let Some(disk) = &mut disk
            && !disk_keeps(disk, round)
        {
            println!("failed: the disk");
            return 1;
        }
        if let Some(memory) = memory
            && !memory_keeps(memory, round)
        {
            println!("failed: memory");
            return 1;
        }
        if round.is_multiple_of(20) && round / 20 < cpus {
            smp::start((round / 20) as u32);
        }
        let before = TICKS.load(Ordering::Relaxed);
        if once {
            lapic::start_timer_once(TIMER, COUNT / 4);
        }
        let mut waits = 0;
        while TICKS.load(Ordering::Relaxed) == before && waits < PATIENCE {
            interrupts::wait();
            waits += 1;
        }
        if QUIT.load(Ordering::Relaxed) {
            return 0;
        }
        if round.is_multiple_of(10) {
            let messages = MESSAGES.load(Ordering::Relaxed);
            println!(
                "round={round} hash={hash:x} started={} messages={messages}",
                smp::recorded()
            );
        }
    }
    0
}

fn tick() {
    TICKS.fetch_add(1, Ordering::Relaxed);
}

fn listen() {
    while let Some(byte) = serial::try_read() {
        QUIT.fetch_or(byte == b'q', Ordering::Relaxed);
    }
}

/// Holds a number in several registers while it counts to some hundred thousand.
fn registers_keep(number: u64) -> bool {
    let (general, low, high): (u64, u64, u64);
    // SAFETY: it changes no memory, and no registers but those that it says.
    unsafe {
        asm!(
            "movq xmm6, {held}",
            "mov r13, {held}",
            "not r13",
            "movq xmm7, r13",
            "2:",
            "dec {count}",
            "jnz 2b",
            "movq {low}, xmm6",
            "movq {high}, xmm7",
            held = in(reg) number,
            count = inout(reg) 300_000u64 => _,
            low = out(reg) low,
            high = out(reg) high,
            out("r13") general,
            out("xmm6") _,
            out("xmm7") _,
        );
    }
    low == number && high == !number && general == !number
}

/// Writes to a page of those from there on, and reads what was written to the one before.
fn memory_keeps(start: u64, round: u64) -> bool {
    let place = |round: u64| start + round % BLOCKS * PAGE_BYTES;
    // SAFETY: memory that nothing else is in, as the command line says.
    unsafe { write64(place(round), round) };
    round == 1 || read64(place(round - 1)) == round - 1
}

/// Writes a block, and reads the one that was written before.
fn disk_keeps<T: Transport>(disk: &mut Disk<T>, round: u64) -> bool {
    let fill = |round: u64| {
        let mut block = [0; SECTOR_SIZE];
        for (index, part) in block.chunks_exact_mut(8).enumerate() {
            part.copy_from_slice(&(round * 1000 + index as u64).to_le_bytes());
        }
        block
    };
    let place = |round: u64| (round % BLOCKS) as usize;
    if disk.write_blocks(place(round), &fill(round)).is_err() {
        return false;
    }
    let mut read = [0; SECTOR_SIZE];
    let before = round - 1;
    before == 0 || (disk.read_blocks(place(before), &mut read).is_ok() && read == fill(before))
}
