//! A virtio disk against the file that it is made of.

use super::host_disk::{DISK_BYTES, Kind, LARGE_OPERATIONS, OPERATIONS};
use super::{Bench, Work, failed, host_disk, parse};
use crate::error::Halt;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::Path;

const fn kind(name: &'static str, bytes: usize, depth: usize, write: bool) -> Kind {
    Kind {
        name,
        bytes,
        depth,
        write,
    }
}

const KINDS: [Kind; 6] = [
    kind("read4k depth=1", 4 << 10, 1, false),
    kind("read4k depth=32", 4 << 10, 32, false),
    kind("read1m depth=1", 1 << 20, 1, false),
    kind("write4k depth=1", 4 << 10, 1, true),
    kind("write4k depth=32", 4 << 10, 32, true),
    kind("write1m depth=1", 1 << 20, 1, true),
];

pub(super) fn measure(
    bench: &Bench<'_>,
    rounds: usize,
    step: &mut dyn FnMut(usize),
) -> Result<Vec<Work>, Halt> {
    let image = bench.file("disk");
    fill(&image).map_err(failed("the disk's file cannot be written"))?;
    let mut all = KINDS.map(|kind| Work::new(kind.name, kind.bytes));
    for round in 1..=rounds {
        step(round);
        let output = in_guest(bench, &image)?;
        for (work, kind) in all.iter_mut().zip(KINDS) {
            let counted = parse(&output, &format!("{} ", kind.name), "ops")?;
            work.in_guest.push(counted.per_second);
            work.per_notification = Some(counted.per_notification);
            let rate = host_disk::rate(&image, &kind);
            work.on_host
                .push(rate.map_err(failed("the file on the host"))?);
        }
    }
    let _ = std::fs::remove_file(&image);
    Ok(all.into())
}

/// Real blocks: a hole is read without touching the disk.
fn fill(path: &Path) -> std::io::Result<()> {
    let bytes: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
    let mut file = File::create(path)?;
    for _ in 0..DISK_BYTES / bytes.len() as u64 {
        file.write_all(&bytes)?;
    }
    file.sync_all()
}

/// What the guest prints.
fn in_guest(bench: &Bench<'_>, image: &Path) -> Result<String, Halt> {
    let mut disk = OsString::from(image);
    disk.push(",direct");
    let cmdline = format!("ops={OPERATIONS} large_ops={LARGE_OPERATIONS} span={DISK_BYTES}");
    let device = ["--disk".into(), disk];
    bench
        .boot("virtio_blk_bench", &device, &cmdline)?
        .wait_output(bench.signals)
}
