//! A block device of the host as a guest's disk: a loop device over a file of the test's own.

use crate::harness::{Guest, Test, program};
use crate::virtio::{BLK, DISK_BYTES, image, read_and_write, success};
use kvmlet_spec::{Disk, VmConfig};
use kvmlet_vmm::Vm;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

pub const TESTS: &[Test] = &[
    ("block_device_reads_and_writes", reads_and_writes),
    ("block_device_of_large_sectors", large_sectors),
    ("block_device_gives_space_back", gives_space_back),
    ("block_device_has_one_writer", one_writer),
    ("block_device_grows", grows),
];

/// Requests of linux/loop.h.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4c07;
/// The device lets go of its file when the last who has it open closes it, whatever ends that process.
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_config`, of which only these fields are set.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    before_flags: [u32; 13],
    flags: u32,
    rest: [u32; 60],
}

/// A loop device that exists as long as this value, or a VM, has it open.
pub struct LoopDevice {
    pub path: PathBuf,
    device: File,
}

impl LoopDevice {
    /// None, aloud, where loop devices are not available.
    fn over(image: &NamedTempFile, block_bytes: u32) -> Option<Self> {
        Self::attached(image.as_file(), block_bytes)
    }

    /// As `over`; one over a file that is only read is read-only, too.
    pub fn attached(file: &File, block_bytes: u32) -> Option<Self> {
        match Self::attach(file, block_bytes) {
            Ok(device) => Some(device),
            Err(error) => {
                println!("SKIPPED: no loop device: {error}");
                None
            }
        }
    }

    fn attach(file: &File, block_bytes: u32) -> io::Result<Self> {
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let control = open(Path::new("/dev/loop-control"))?;
        loop {
            let number = ioctl(&control, LOOP_CTL_GET_FREE, std::ptr::null())?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open(&path)?;
            let config = LoopConfig {
                fd: file.as_raw_fd() as u32,
                block_size: block_bytes,
                before_flags: [0; 13],
                flags: LO_FLAGS_AUTOCLEAR,
                rest: [0; 60],
            };
            match ioctl(&device, LOOP_CONFIGURE, (&raw const config).cast()) {
                Ok(_) => {
                    let flag = format!("/sys/block/loop{number}/loop/autoclear");
                    assert_eq!(std::fs::read_to_string(flag)?.trim(), "1");
                    return Ok(Self { path, device });
                }
                // Somebody else was quicker.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn ioctl(file: &File, request: libc::Ioctl, argument: *const libc::c_void) -> io::Result<i32> {
    // SAFETY: the descriptor is open, and the argument is null or what the request reads.
    match unsafe { libc::ioctl(file.as_raw_fd(), request, argument) } {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

/// A guest reads and writes a device, by the keys of `--disk` that are given.
fn read_and_write_on(block_bytes: u32, keys: &str) {
    let image = image();
    if let Some(device) = LoopDevice::over(&image, block_bytes) {
        let disk = format!("{}{keys}", device.path.display());
        read_and_write(disk.parse().unwrap(), &image);
    }
}

fn reads_and_writes() {
    for keys in ["", ",io=sync", ",direct", ",ro"] {
        read_and_write_on(512, keys);
    }
}

/// The guest's driver asks for sectors of 512 bytes all the same; O_DIRECT cannot do those.
fn large_sectors() {
    read_and_write_on(4096, "");
    read_and_write_on(4096, ",direct");
}

fn gives_space_back() {
    const SECTORS: usize = 2048;
    let image = image();
    let Some(device) = LoopDevice::over(&image, 512) else {
        return;
    };
    image.as_file().sync_all().unwrap();
    let blocks = || image.as_file().metadata().unwrap().blocks();
    let (before, bytes_before) = (blocks(), std::fs::read(image.path()).unwrap());
    let cmdline = format!("{BLK} first={SECTORS} sectors={SECTORS}");
    let disk = Disk::read_write(&device.path);
    let output = success(Guest::boot_with("virtio_blk_free", |c| {
        c.cmdline(cmdline).disk(disk)
    }));
    for kind in ["discard", "zeroes", "unmap"] {
        assert!(output.contains(&format!("{kind} status=0")), "{output}");
    }
    device.device.sync_all().unwrap();
    let after = std::fs::read(image.path()).unwrap();
    let (start, end) = (SECTORS * 512, 4 * SECTORS * 512);
    assert!(after[start..end].iter().all(|byte| *byte == 0));
    assert_eq!(after[..start], bytes_before[..start]);
    assert_eq!(after[end..], bytes_before[end..]);
    // What was discarded, and what was zeroed with leave to give it back.
    assert!(
        blocks() <= before - 2 * SECTORS as u64,
        "{before} to {}",
        blocks()
    );
}

fn refusal(path: &Path) -> String {
    let config = VmConfig::builder()
        .kernel(program("spin"))
        .disk(Disk::read_write(path));
    let error = Vm::new(config.build().unwrap()).err().expect("a refusal");
    format!("{error}: {}", error.source().unwrap())
}

fn one_writer() {
    let image = image();
    let Some(device) = LoopDevice::over(&image, 512) else {
        return;
    };
    let disk = Disk::read_write(&device.path);
    let first = Guest::boot_with("spin", |c| c.disk(disk.clone()));
    let name = device.path.to_str().unwrap();
    let error = refusal(&device.path);
    assert!(error.contains(name) && error.contains("in use"), "{error}");
    // Another node of the same device, which has locks of its own.
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other");
    let kind = rustix::fs::FileType::BlockDevice;
    let number = std::fs::metadata(&device.path).unwrap().rdev();
    match rustix::fs::mknodat(rustix::fs::CWD, &other, kind, 0o600.into(), number) {
        Ok(()) => {
            let error = refusal(&other);
            let this = format!("by another disk of this process ({})", std::process::id());
            assert!(error.contains(&this), "{error}");
        }
        Err(error) => println!("SKIPPED: no second node: {error}"),
    }
    drop(first);
    drop(Guest::boot_with("spin", |c| c.disk(disk)));
}

fn grows() {
    let image = image();
    let Some(device) = LoopDevice::over(&image, 512) else {
        return;
    };
    let guest = Guest::boot_with("spin", |c| c.disk(Disk::read_write(&device.path)));
    let disk = &guest.vm.disks()[0];
    assert_eq!(disk.bytes(), DISK_BYTES);
    image
        .as_file()
        .write_all_at(&[1; 4096], DISK_BYTES)
        .unwrap();
    ioctl(&device.device, LOOP_SET_CAPACITY, std::ptr::null()).unwrap();
    assert_eq!(disk.resize().unwrap(), DISK_BYTES + 4096);
    assert_eq!(disk.bytes(), DISK_BYTES + 4096);
}
