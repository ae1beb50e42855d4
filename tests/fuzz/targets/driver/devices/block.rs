//! A disk on a real file.

use super::super::Manners;
use super::super::subject::{Limit, Part, Subject};
use kvmlet_spec::{Disk, Extent, Extents, RateLimit};
use kvmlet_vmm::devices::virtio::block::{BlockHandle, DiskSpec};
use kvmlet_vmm::devices::virtio::{DeviceSpec, VirtioDevice};
use std::path::PathBuf;
use std::sync::LazyLock;

/// Whole sectors, and a rest that is too short for one.
const SECTORS: u64 = 512;
const REST: usize = 300;
const REST_BYTE: u8 = 0xa7;
/// The most that a request by the rules transfers or gives back, in bytes; others are refused.
const LARGEST: u64 = 2 << 30;
/// VIRTIO_BLK_F_MQ.
const MULTI_QUEUE: u64 = 1 << 12;

static IMAGE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("kvmlet-fuzz-{}.img", std::process::id())));

pub struct Block {
    handle: BlockHandle,
    limit: Limit,
    queues: u32,
    read_only: bool,
}

/// A disk as the first bytes of an input want it. The file is as it was each time.
pub fn block(header: [u8; 8]) -> (Box<dyn VirtioDevice>, Block) {
    fresh();
    let [_, kind, limit, ..] = header;
    let queues = u32::from(kind >> 6) + 1;
    let ranges = kind & 0x38 == 0x30;
    let read_only = kind & 0x38 == 0x38 || ranges;
    let mut keys = format!("queues={queues}");
    keys += if kind & 1 == 0 { ",io=sync" } else { "" };
    keys += if kind & 2 == 0 {
        ""
    } else {
        ",cache=writethrough"
    };
    keys += if kind & 4 == 0 { "" } else { ",direct=on" };
    keys += if read_only { ",ro" } else { "" };
    let mut disk: Disk = format!("{},{keys}", IMAGE.display())
        .parse()
        .expect("a disk");
    if ranges {
        disk.source = reversed().into();
    }
    let limit = Limit::new(limit);
    disk.rate_limit = limit.limit;
    let (device, handle) = DiskSpec {
        disk: &disk,
        index: 0,
        mount: None,
        poll: std::time::Duration::ZERO,
    }
    .build()
    .expect("an image that opens");
    let device: Box<dyn VirtioDevice> = Box::new(device);
    // Without it there is one queue, whatever else is set up.
    let queues = if Manners::new(header, &*device).features & MULTI_QUEUE == 0 {
        1
    } else {
        queues
    };
    (
        device,
        Block {
            handle,
            limit,
            queues,
            read_only,
        },
    )
}

fn contents() -> &'static [u8] {
    static CONTENTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let bytes = (0..SECTORS as usize * 512).map(|at| (at / 512 + at % 7) as u8);
        bytes.chain([REST_BYTE; REST]).collect()
    });
    &CONTENTS
}

/// A range for each block, the last first.
fn reversed() -> Extents {
    let blocks = SECTORS * 512 / Extent::BLOCK_BYTES;
    let extent = |block| Extent::new(&*IMAGE, block * Extent::BLOCK_BYTES, Extent::BLOCK_BYTES);
    let extents: Result<Vec<_>, _> = (0..blocks).rev().map(extent).collect();
    let extents = extents.and_then(Extents::try_from);
    extents.expect("a disk of ranges")
}

fn fresh() {
    std::fs::write(&*IMAGE, contents()).expect("an image");
}

impl Subject for Block {
    fn request(&self, _: u32, [kind, low, high, sizes, more, fill, ..]: [u8; 8]) -> Vec<Part> {
        const KINDS: [u32; 8] = [0, 1, 0, 1, 4, 8, 11, 13];
        let kind = match kind {
            0..=247 => KINDS[usize::from(kind & 7)],
            other => other.into(),
        };
        let sector = u64::from(u16::from_le_bytes([low, high])) % (SECTORS + 4);
        let mut header = vec![0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        let mut parts = vec![Part::readable(header)];
        let bytes = |size: u8| match size & 7 {
            0 => 0,
            1 => 4096,
            2 => 65536,
            3 => u32::from(size >> 3),
            _ => 512 * u32::from((size >> 3) + 1),
        };
        match kind {
            0 => parts.extend([sizes, more].map(|size| Part::writable(bytes(size)))),
            8 => parts.push(Part::writable(20)),
            11 | 13 => {
                let mut range = sector.to_le_bytes().to_vec();
                range.extend(u32::from(sizes).to_le_bytes());
                range.extend(u32::from(more & 3).to_le_bytes());
                parts.push(Part::readable(range));
            }
            _ => parts
                .extend([sizes, more].map(|size| Part::readable(vec![fill; bytes(size) as usize]))),
        }
        parts.push(Part::writable(1));
        parts
    }

    fn answers(&self, queue: u32) -> bool {
        queue < self.queues
    }

    fn act(&mut self, [what, value, ..]: [u8; 8]) {
        match what & 3 {
            0 => {
                self.limit.constant = false;
                self.handle.set_rate_limit(Limit::new(value).limit);
            }
            1 => drop(self.handle.resize()),
            _ => drop(self.handle.stats()),
        }
    }

    fn lift_limits(&mut self) -> bool {
        self.check_limit();
        self.limit.constant = false;
        self.handle.set_rate_limit(RateLimit::NONE);
        true
    }

    fn check(&mut self) {
        self.check_limit();
        let now = std::fs::read(&*IMAGE).expect("the image");
        let disk = SECTORS as usize * 512;
        assert_eq!(now.len(), disk + REST, "the file has another size");
        assert!(
            now[disk..].iter().all(|byte| *byte == REST_BYTE),
            "beyond the disk"
        );
        assert!(
            !self.read_only || now == contents(),
            "a read-only disk was written"
        );
    }
}

impl Block {
    fn check_limit(&self) {
        let stats = self.handle.stats();
        let requests = stats.reads
            + stats.writes
            + stats.flushes
            + stats.discards
            + stats.write_zeroes
            + stats.errors;
        self.limit
            .check(requests, stats.read_bytes + stats.written_bytes, LARGEST);
    }
}
