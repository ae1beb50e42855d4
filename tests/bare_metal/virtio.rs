//! virtio devices driven by someone else's drivers (the `virtio-drivers` crate), at native speed.

use crate::cli::{kvmlet, run, text};
use crate::harness::patience::{eventually, patience};
use crate::harness::{Guest, Test, number};
use kvmlet_vmm::ExitReason;

use kvmlet_spec::{Disk, RateLimit};
use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;
use tempfile::NamedTempFile;

pub const TESTS: &[Test] = &[
    ("virtio_rng_gives_entropy", rng),
    (
        "virtio_queues_that_are_malformed_leave_the_vm_running",
        malformed,
    ),
    ("virtio_blk_reads_and_writes", block),
    ("virtio_blk_by_system_calls", block_sync),
    ("virtio_blk_read_only_disks_are_shared", block_read_only),
    ("virtio_blk_of_ranges_of_files", block_of_ranges),
    ("virtio_blk_notifies_once_a_batch", block_batches),
    ("virtio_blk_has_one_writer", block_lock),
    ("virtio_blk_is_held_to_its_rate", block_rate),
    (
        "virtio_blk_ten_vms_share_the_pages_of_an_image",
        block_shared,
    ),
];

/// The entropy source has the first slot, the first disk the one behind.
const RNG: &str = "mmio=0xd0001000";
pub const BLK: &str = "mmio=0xd0002000";
pub const DISK_BYTES: u64 = 8 << 20;

pub fn success(guest: Guest) -> String {
    let (reason, output) = guest.finish();
    assert_eq!(reason, ExitReason::Shutdown { code: 0 }, "{output}");
    output
}

fn rng() {
    let guest = Guest::boot_with("virtio_rng", |c| c.cmdline(RNG));
    guest.wait().unwrap();
    eventually("what was given is counted", || {
        let stats = guest.vm.stats().entropy.unwrap();
        stats.requests > 0 && stats.bytes >= stats.requests && stats.notifications > 0
    });
    success(guest);
}

/// Each way to break the rules is the end of a queue, until its device is reset, and of nothing else.
fn malformed() {
    for io in ["sync", "auto"] {
        let image = image();
        let disk = format!("{},io={io}", image.path().display());
        let guest = Guest::boot_with("virtio_malformed", |c| {
            c.cmdline("devices=0xd0001000,0xd0002000")
                .disk(disk.parse().unwrap())
        });
        let output = success(guest);
        assert!(output.contains("device 4: 12 ways"), "{output}");
        assert!(output.contains("device 2: 12 ways"), "{output}");
    }
}

/// A disk full of numbers.
pub fn image() -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..DISK_BYTES / 8).flat_map(u64::to_le_bytes).collect();
    file.write_all(&bytes).unwrap();
    file
}

/// FNV-1a, as the guest computes it.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// What the guest says it has read is what is in the file, before and after it wrote there.
pub fn read_and_write(disk: Disk, image: &NamedTempFile) {
    let before = std::fs::read(image.path()).unwrap();
    let guest = Guest::boot_with("virtio_blk", |c| c.cmdline(BLK).disk(disk.clone()));
    let output = success(guest);
    let after = std::fs::read(image.path()).unwrap();
    assert!(
        output.contains(&format!("capacity={}", DISK_BYTES / 512)),
        "{output}"
    );
    assert!(
        output.contains(&format!("fnv1a={:016x}", fnv1a(&after[..1 << 20]))),
        "{output}"
    );
    assert_eq!(before == after, disk.read_only, "{output}");
}

fn block() {
    let image = image();
    read_and_write(Disk::read_write(image.path()), &image);
}

fn block_sync() {
    let image = image();
    let disk = format!(
        "{},io=sync,cache=writethrough,id=mine",
        image.path().display()
    );
    read_and_write(disk.parse().unwrap(), &image);
}

fn block_read_only() {
    let image = image();
    let disk = Disk::read_only(image.path());
    let other = Guest::boot_with("spin", |c| c.disk(disk.clone()));
    read_and_write(disk, &image);
    drop(other);
}

/// A disk that is made of ranges of two files, in an order of its own, reads across their borders as one, in a jail
/// as well, by a ring and by system calls.
fn block_of_ranges() {
    const BLOCK: u64 = 12 << 10;
    let files = [image(), image()];
    let ranges = (0..600).map(|number: u64| (number as usize % 2, (599 - number) * BLOCK));
    let contents = files
        .each_ref()
        .map(|file| std::fs::read(file.path()).unwrap());
    let disk: Vec<u8> = ranges
        .clone()
        .flat_map(|(file, at)| &contents[file][at as usize..(at + BLOCK) as usize])
        .copied()
        .collect();
    let extents: Vec<_> = ranges
        .map(|(file, at)| {
            format!(
                r#"{{"path": {:?}, "offset": {at}, "bytes": {BLOCK}}}"#,
                files[file].path()
            )
        })
        .collect();
    for io in ["sync", "auto"] {
        let json = format!(
            r#"{{"jail": "required", "cmdline": "{BLK}", "disks": [{{"path": [{}], "read_only": true, "io": "{io}"}}]}}"#,
            extents.join(", ")
        );
        let config = NamedTempFile::new().unwrap();
        std::fs::write(config.path(), json).unwrap();
        let output = run(kvmlet("virtio_blk").arg("--config").arg(config.path()));
        let (told, errors) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{told}{errors}");
        assert!(
            told.contains(&format!("capacity={} readonly=true", disk.len() / 512)),
            "{told}"
        );
        assert!(told.contains("beyond the end: refused"), "{told}");
        assert!(
            told.contains(&format!("fnv1a={:016x}", fnv1a(&disk[..1 << 20]))),
            "{told}"
        );
        // One after the other, or many at a time: others may read the same files.
        let other = Guest::boot_with("spin", |c| c.disk(Disk::read_only(files[0].path())));
        let again = run(kvmlet("virtio_blk").arg("--config").arg(config.path()));
        assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
        drop(other);
    }
}

/// 2000 requests in batches of 32 are 63 batches; no batch takes more than one exit.
fn block_batches() {
    let image = image();
    let cmdline = format!("{BLK} ops=2000 large_ops=1 only=read");
    let guest = Guest::boot_with("virtio_blk_bench", |c| {
        c.cmdline(cmdline).disk(Disk::read_only(image.path()))
    });
    guest.wait().unwrap();
    let output = guest.output.text();
    let line = output
        .lines()
        .find(|line| line.starts_with("read4k depth=32"))
        .expect(&output);
    let kicks = number(line, "kicks=");
    assert!(kicks <= 63.0, "{line}");
    eventually("each read is counted", || {
        guest.vm.disks()[0].stats().reads >= 4000
    });
    assert_eq!(guest.vm.disks()[0].stats().errors, 0);
}

fn block_lock() {
    let image = image();
    let disk = Disk::read_write(image.path());
    let first = Guest::boot_with("spin", |c| c.disk(disk.clone()));
    let config = kvmlet_spec::VmConfig::builder()
        .kernel(crate::harness::program("spin"))
        .disk(disk.clone());
    let error = kvmlet_vmm::Vm::new(config.clone().build().unwrap())
        .err()
        .expect("a refusal");
    let chain = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(chain.contains(image.path().to_str().unwrap()), "{chain}");
    drop(first);
    assert!(
        kvmlet_vmm::Vm::new(config.build().unwrap()).is_ok(),
        "the lock went with the VM"
    );
}

/// 100 operations at 1000 a second with a burst of 10 have to wait; how long is a matter for benchmarks. A host that is
/// slower gets far fewer, for there to be something to wait for.
fn block_rate() {
    let mut image = image();
    image.seek(SeekFrom::Start(0)).unwrap();
    let iops = 1000 / patience(Duration::from_secs(1)).as_secs().pow(2);
    let path = image.path().display();
    let disk: Disk = format!("{path},ro,iops={iops},iops-burst=10")
        .parse()
        .unwrap();
    let cmdline = format!("{BLK} ops=100 large_ops=1 only=read");
    let guest = Guest::boot_with("virtio_blk_bench", |c| c.cmdline(cmdline).disk(disk));
    guest.output.expect("depth=1 ");
    // Lifted while it runs, so that the rest is quick.
    guest.vm.disks()[0].set_rate_limit(RateLimit::NONE);
    guest.wait().unwrap();
    eventually("the wait is counted", || {
        let stats = guest.vm.disks()[0].stats();
        stats.throttled > 0 && stats.throttled_us > 0
    });
}

/// Ten VMs at a time that each read all of an image, which the host's page cache does not hold at first: the host
/// fetches it once. (Each guest has what it reads in RAM of its own: that is not shared.)
fn block_shared() {
    let image = image();
    image.as_file().sync_all().unwrap();
    let advice = rustix::fs::Advice::DontNeed;
    rustix::fs::fadvise(image.as_file(), 0, None, advice).unwrap();
    // 1 MiB requests one after the other over the whole disk.
    let cmdline = format!("{BLK} ops=1 large_ops={} only=read", DISK_BYTES >> 20);
    let before = storage_bytes();
    let guests: Vec<_> = (0..10)
        .map(|_| {
            let disk = Disk::read_only(image.path());
            Guest::boot_with("virtio_blk_bench", |c| c.cmdline(&*cmdline).disk(disk))
        })
        .collect();
    for guest in &guests {
        guest.wait().unwrap();
        eventually("all of the image was read", || {
            guest.vm.disks()[0].stats().read_bytes >= DISK_BYTES
        });
    }
    // Other tests may read something at the same time; ten copies would be 80 MiB.
    let fetched = storage_bytes() - before;
    assert!(fetched < 3 * DISK_BYTES, "{fetched} bytes for ten VMs");
}

/// What this process made the host fetch from its storage.
fn storage_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find(|line| line.starts_with("read_bytes: "));
    number(line.unwrap(), "read_bytes: ") as u64
}
