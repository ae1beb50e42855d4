//! The device behind the transport, driven by the fake driver, on each kind of back end.

mod caching;
mod contract;
mod extents;
mod fallback;
mod hung;
mod limits;
mod malformed;
mod medium;
mod model;
mod requests;

use super::*;
use crate::config::{Extent, Extents};
use crate::devices::virtio::fake_driver::{BUFFERS, FakeDriver, WRITE};
use crate::devices::virtio::rate_limiter::tests::TestClock;
use medium::MemoryMedium;
use std::fs::File;
use std::sync::LazyLock;
use tempfile::NamedTempFile;

/// Request types (virtio 1.2 §5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// Status bytes.
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

/// Where tests put the parts of a request.
const HEADER: u64 = BUFFERS;
const OUTGOING: u64 = BUFFERS + 0x1000;
const INCOMING: u64 = BUFFERS + 0x20_0000;

/// As VMs have it.
const POLL: Duration = Duration::from_micros(50);

const SECTOR: usize = 512;
const DISK_SECTORS: u64 = 2048;

/// An image whose sectors all differ.
fn image() -> NamedTempFile {
    let image = NamedTempFile::new().unwrap();
    std::fs::write(image.path(), pattern()).unwrap();
    image
}

fn pattern() -> Vec<u8> {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        (0..DISK_SECTORS as u32)
            .flat_map(|sector| (0..SECTOR as u32 / 4).map(move |word| sector << 8 | word))
            .flat_map(u32::to_le_bytes)
            .collect()
    });
    PATTERN.clone()
}

fn open(disk: &Disk, index: usize) -> Result<(BlockDevice, BlockHandle), Error> {
    let mount = None;
    DiskSpec {
        disk,
        index,
        mount,
        poll: POLL,
    }
    .build()
}

/// A driver and the disk that it drives.
struct Rig {
    driver: FakeDriver,
    handle: BlockHandle,
    /// Keeps the file until the end.
    image: Option<NamedTempFile>,
}

impl Rig {
    fn on_file(change: impl FnOnce(&mut Disk)) -> Self {
        let image = image();
        let mut disk = Disk::read_write(image.path());
        change(&mut disk);
        let (device, handle) = open(&disk, 0).unwrap();
        Self {
            driver: FakeDriver::ready(Box::new(device)),
            handle,
            image: Some(image),
        }
    }

    /// A disk of that content that is made of a range for each block of a file, which has them in the opposite order.
    fn on_extents(change: impl FnOnce(&mut Disk)) -> Self {
        const BLOCK: usize = Extent::BLOCK_BYTES as usize;
        let image = NamedTempFile::new().unwrap();
        let content = pattern();
        let blocks: Vec<u8> = content.rchunks(BLOCK).flatten().copied().collect();
        std::fs::write(image.path(), blocks).unwrap();
        let offsets = (0..content.len()).step_by(BLOCK).rev();
        let extent =
            |offset: usize| Extent::new(image.path(), offset as u64, BLOCK as u64).unwrap();
        let extents: Vec<Extent> = offsets.map(extent).collect();
        let mut disk = Disk::read_only(Extents::try_from(extents).unwrap());
        change(&mut disk);
        let (device, handle) = open(&disk, 0).unwrap();
        Self {
            driver: FakeDriver::ready(Box::new(device)),
            handle,
            image: Some(image),
        }
    }

    fn in_memory(medium: &MemoryMedium, limiter: RateLimiter, disk: &Disk, features: u64) -> Self {
        let (device, handle) =
            BlockDevice::on(Arc::new(medium.clone()), limiter, disk, 0, POLL).unwrap();
        Self {
            driver: FakeDriver::ready_with(Box::new(device), features),
            handle,
            image: None,
        }
    }

    /// One rig for each back end that this host has.
    fn each(change: impl Fn(&mut Disk)) -> Vec<Self> {
        let mut rigs = vec![Self::on_file(|disk| {
            disk.io = DiskIo::Sync;
            change(disk);
        })];
        match ring::new(1, ring::Medium::File) {
            Ok(_) => rigs.extend([DiskIo::Auto, DiskIo::IoUring].map(|io| {
                Self::on_file(|disk| {
                    disk.io = io;
                    change(disk);
                })
            })),
            Err(error) => {
                eprintln!("SKIPPED: back ends with io_uring, which this host forbids: {error}")
            }
        }
        let mut disk = Disk::read_write("memory");
        change(&mut disk);
        let (medium, limiter) = (
            MemoryMedium::new(pattern()),
            RateLimiter::new(disk.rate_limit),
        );
        rigs.push(Self::in_memory(&medium, limiter, &disk, !0));
        rigs
    }

    fn header(&self, kind: u32, sector: u64) {
        self.driver.put(HEADER, &kind.to_le_bytes());
        self.driver.put(HEADER + 4, &[0; 4]);
        self.driver.put(HEADER + 8, &sector.to_le_bytes());
    }

    /// Sends a request as drivers do: header, data, status.
    fn send(&mut self, kind: u32, sector: u64, data: &[u8], room: u32) {
        self.header(kind, sector);
        self.driver.put(OUTGOING, data);
        self.driver.put(INCOMING, &vec![0xee; room as usize + 1]);
        let mut buffers = vec![(HEADER, 16, 0)];
        if !data.is_empty() {
            buffers.push((OUTGOING, data.len() as u32, 0));
        }
        if room > 0 {
            buffers.push((INCOMING, room, WRITE));
        }
        buffers.push((INCOMING + u64::from(room), 1, WRITE));
        self.driver.send(0, &buffers);
    }

    /// Waits for the answer to [`send`](Self::send): status, bytes reported as written, data.
    fn answer(&mut self, room: u32) -> (u8, u32, Vec<u8>) {
        let (head, written) = self.driver.used(0);
        assert_eq!(head, 0);
        let mut data = self.driver.bytes(INCOMING, room as usize + 1);
        (data.pop().unwrap(), written, data)
    }

    fn request(&mut self, kind: u32, sector: u64, data: &[u8], room: u32) -> (u8, u32, Vec<u8>) {
        self.send(kind, sector, data, room);
        self.answer(room)
    }

    fn status(&mut self, kind: u32, sector: u64, data: &[u8], room: u32) -> u8 {
        self.request(kind, sector, data, room).0
    }

    fn read(&mut self, sector: u64, sectors: u32) -> Vec<u8> {
        let room = sectors * SECTOR as u32;
        let (status, written, data) = self.request(IN, sector, &[], room);
        assert_eq!((status, written), (OK, room + 1));
        data
    }

    fn write(&mut self, sector: u64, data: &[u8]) {
        assert_eq!(self.request(OUT, sector, data, 0), (OK, 1, vec![]));
    }

    fn ranged(&mut self, kind: u32, sector: u64, sectors: u32, flags: u32) -> u8 {
        let data = range(sector, sectors, flags);
        self.status(kind, 0, &data, 0)
    }

    /// The file behind the disk.
    fn file(&self) -> &File {
        self.image.as_ref().unwrap().as_file()
    }
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [
        &sector.to_le_bytes()[..],
        &sectors.to_le_bytes(),
        &flags.to_le_bytes(),
    ]
    .concat()
}
