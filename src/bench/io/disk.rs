//! A virtio disk against the file that it is made of.

use super::host_disk::{DISK_BYTES, Kind, LARGE_OPERATIONS, OPERATIONS};
use super::peer::{Device, Entrant};
use super::{Bench, Work, failed, host_disk, parse};
use crate::error::Halt;
use rustix::fs::{Advice, fadvise};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::Path;

const fn kind([name, cached]: [&'static str; 2], bytes: usize, depth: usize, write: bool) -> Kind {
    Kind {
        name,
        cached,
        bytes,
        depth,
        write,
    }
}

const KINDS: [Kind; 6] = [
    kind(["read4k depth=1", "cached read4k d=1"], 4 << 10, 1, false),
    kind(
        ["read4k depth=32", "cached read4k d=32"],
        4 << 10,
        32,
        false,
    ),
    kind(["read1m depth=1", "cached read1m d=1"], 1 << 20, 1, false),
    kind(["write4k depth=1", "cached write4k d=1"], 4 << 10, 1, true),
    kind(
        ["write4k depth=32", "cached write4k d=32"],
        4 << 10,
        32,
        true,
    ),
    kind(["write1m depth=1", "cached write1m d=1"], 1 << 20, 1, true),
];
const GUEST: &str = "virtio_blk_bench";

/// Past the page cache, then through it; who has no way past it takes part in the second alone.
pub(super) fn measure(
    bench: &Bench<'_>,
    rounds: usize,
    step: &mut dyn FnMut(usize),
) -> Result<Vec<Work>, Halt> {
    let image = bench.file("disk");
    fill(&image).map_err(failed("the disk's file cannot be written"))?;
    let mut ways = [true, false].map(|direct| Way::new(bench, &image, direct));
    for round in 1..=rounds {
        step(round);
        for way in &mut ways {
            way.round(bench, round)?;
        }
    }
    let _ = std::fs::remove_file(&image);
    Ok(ways.into_iter().flat_map(|way| way.work).collect())
}

/// All kinds of work, past the page cache or through it.
struct Way<'a> {
    image: &'a Path,
    direct: bool,
    entrants: Vec<Entrant<'a>>,
    work: [Work; KINDS.len()],
}

impl<'a> Way<'a> {
    fn new(bench: &Bench<'a>, image: &'a Path, direct: bool) -> Self {
        let entrants = Entrant::with_disk(bench.peers, direct);
        let work = |kind: Kind| Work {
            rivals: entrants.iter().map(Entrant::rival).collect(),
            ..Work::new(if direct { kind.name } else { kind.cached }, kind.bytes)
        };
        Self {
            image,
            direct,
            work: KINDS.map(work),
            entrants,
        }
    }

    /// Nobody comes first or last each time; but who tells how fast the clock is comes before others in the first round.
    fn round(&mut self, bench: &Bench<'_>, round: usize) -> Result<(), Halt> {
        for turn in super::turns(&self.entrants, round) {
            settle(self.image, self.direct).map_err(failed("the disk's file cannot be read"))?;
            match turn {
                None => self.in_turn(bench)?,
                Some(entrant) => {
                    let done = self.rival(bench, entrant);
                    bench.go_on_without(done, entrant, &mut self.entrants)?;
                }
            }
        }
        Ok(())
    }

    /// kvmlet's guest, and the host.
    fn in_turn(&mut self, bench: &Bench<'_>) -> Result<(), Halt> {
        let output = in_guest(bench, self.image, self.direct)?;
        for (work, kind) in self.work.iter_mut().zip(KINDS) {
            let counted = parse(&output, &format!("{} ", kind.name), "ops")?;
            bench.khz.set(counted.khz);
            work.in_guest.push(counted.per_second(counted.khz)?);
            work.per_notification = Some(counted.per_notification);
            let rate = host_disk::rate(self.image, &kind, self.direct);
            work.on_host
                .push(rate.map_err(failed("the file on the host"))?);
        }
        Ok(())
    }

    fn rival(&mut self, bench: &Bench<'_>, entrant: Entrant<'_>) -> Result<(), Halt> {
        let last = KINDS[KINDS.len() - 1].name;
        let device = Device::Disk {
            path: self.image,
            direct: self.direct,
        };
        let mut running = entrant.start(bench, GUEST, device, &cmdline())?;
        let output = running.wait_line(bench.signals, last)?;
        for (work, kind) in self.work.iter_mut().zip(KINDS) {
            work.note(
                entrant,
                bench.rate(&output, &format!("{} ", kind.name), "ops")?,
            );
        }
        Ok(())
    }
}

/// Has nothing left to be written, and all of it in the page cache, or nothing: whoever comes first would else pay for what others
/// wrote before. A request past the page cache waits for pages of it that have changed.
fn settle(image: &Path, direct: bool) -> std::io::Result<()> {
    let mut file = File::open(image)?;
    file.sync_all()?;
    match direct {
        true => Ok(fadvise(&file, 0, None, Advice::DontNeed)?),
        false => std::io::copy(&mut file, &mut std::io::sink()).map(drop),
    }
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
fn in_guest(bench: &Bench<'_>, image: &Path, direct: bool) -> Result<String, Halt> {
    let mut disk = OsString::from(image);
    disk.push(if direct { ",direct" } else { "" });
    let device = ["--disk".into(), disk];
    bench
        .boot(GUEST, &device, &cmdline())?
        .wait_output(bench.signals)
}

fn cmdline() -> String {
    format!("ops={OPERATIONS} large_ops={LARGE_OPERATIONS} span={DISK_BYTES}")
}
