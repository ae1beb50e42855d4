//! Checks a virtio block device (`mmio=ADDRESS`) with the `virtio-drivers` crate's driver:
//! capacity, id, writes and reads at the start, in the middle and at the end, flush, several
//! requests in flight, and a read beyond the end, which must fail and leave the device usable.
//! `salt=N` changes what is written.
//!
//! A read-only disk is only read. Prints a line for each step and `fnv1a=HASH` over the
//! first MiB (or all, if the disk is smaller) as it is at the end, so that the host can
//! compare. Ends with 0, or 1 and what is wrong.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::println;
use kvmlet_guests::virtio::{self, Identity};
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::mmio::MmioTransport;

kvmlet_guests::program!(run);

type Disk = VirtIOBlk<Identity, MmioTransport<'static>>;

/// Sectors of the large request.
const LARGE: usize = 256;
/// Smallest disk that the checks fit on.
const SMALLEST: usize = 4 * LARGE;

fn run(info: &BootInfo) -> u8 {
    match check(info) {
        Ok(()) => 0,
        Err(problem) => {
            println!("failed: {problem}");
            1
        }
    }
}

fn check(info: &BootInfo) -> Result<(), Error> {
    let mut disk = Disk::new(virtio::device(info, DeviceType::Block))?;
    let sectors = disk.capacity() as usize;
    println!("capacity={sectors} readonly={}", disk.readonly());
    let mut id = [0; 20];
    let length = disk.device_id(&mut id)?;
    println!(
        "id={}",
        core::str::from_utf8(&id[..length]).unwrap_or("not UTF-8")
    );
    if !disk.readonly() {
        assert!(
            sectors >= SMALLEST,
            "the disk has fewer than {SMALLEST} sectors"
        );
        let salt = info.number("salt").unwrap_or(0);
        write_and_read_back(&mut disk, sectors, salt)?;
    }
    read_in_flight(&mut disk)?;
    let mut sector = [0; SECTOR_SIZE];
    match disk.read_blocks(sectors, &mut sector) {
        Err(Error::IoError) => println!("beyond the end: refused"),
        other => panic!("a read beyond the end gave {other:?}"),
    }
    println!("fnv1a={:016x}", checksum(&mut disk, sectors.min(2048))?);
    Ok(())
}

/// Writes three areas, flushes, and reads all of them after the last write.
fn write_and_read_back(disk: &mut Disk, sectors: usize, salt: u64) -> Result<(), Error> {
    let areas = [(0, 1), (sectors / 2, LARGE), (sectors - 1, 1)];
    for (first, count) in areas {
        disk.write_blocks(first, &pattern(first, count, salt))?;
    }
    disk.flush()?;
    for (first, count) in areas {
        let mut found = vec![0; count * SECTOR_SIZE];
        disk.read_blocks(first, &mut found)?;
        assert!(
            found == pattern(first, count, salt),
            "sector {first} reads back differently"
        );
        println!("wrote and read {count} at {first}");
    }
    Ok(())
}

/// `count` sectors of bytes that depend on their place and the salt.
fn pattern(first: usize, count: usize, salt: u64) -> Vec<u8> {
    let start = (first * SECTOR_SIZE) as u64;
    (start..start + (count * SECTOR_SIZE) as u64)
        .map(|place| ((place ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

/// Reads the first sectors by requests that are in flight together, whatever the order in
/// which they end, and compares with one request for all.
fn read_in_flight(disk: &mut Disk) -> Result<(), Error> {
    const COUNT: usize = 5; // of three descriptors each, without indirect ones, of 16
    let mut requests: [BlkReq; COUNT] = Default::default();
    let mut responses: [BlkResp; COUNT] = Default::default();
    let mut sectors = [[0; SECTOR_SIZE]; COUNT];
    let mut tokens = [0; COUNT];
    for index in 0..COUNT {
        // SAFETY: the buffers stay untouched until the request with this token has ended.
        tokens[index] = unsafe {
            disk.read_blocks_nb(
                index,
                &mut requests[index],
                &mut sectors[index],
                &mut responses[index],
            )
        }?;
    }
    for _ in 0..COUNT {
        let token = loop {
            match disk.peek_used() {
                Some(token) => break token,
                None => core::hint::spin_loop(),
            }
        };
        let Some(index) = tokens.iter().position(|known| *known == token) else {
            panic!("the device used descriptor {token}, which no request has")
        };
        // SAFETY: the buffers of the request with this token.
        unsafe {
            disk.complete_read_blocks(
                token,
                &requests[index],
                &mut sectors[index],
                &mut responses[index],
            )
        }?;
    }
    let mut together = [0; COUNT * SECTOR_SIZE];
    disk.read_blocks(0, &mut together)?;
    assert!(
        together == *sectors.as_flattened(),
        "requests in flight mixed up their sectors"
    );
    println!("{COUNT} in flight: ok");
    Ok(())
}

/// 64-bit FNV-1a of the first `sectors` sectors.
fn checksum(disk: &mut Disk, sectors: usize) -> Result<u64, Error> {
    let mut buffer = vec![0; LARGE * SECTOR_SIZE];
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for first in (0..sectors).step_by(LARGE) {
        let bytes = &mut buffer[..LARGE.min(sectors - first) * SECTOR_SIZE];
        disk.read_blocks(first, bytes)?;
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    Ok(hash)
}
