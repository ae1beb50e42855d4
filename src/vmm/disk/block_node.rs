//! Block devices as sysfs shows them (Documentation/ABI/stable/sysfs-block).

use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the names of loop devices begin with.
pub(super) const LOOP_PREFIX: &str = "loop";
/// Of a loop device: what it is over (linux/loop.h).
const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;

/// A block device of the host.
#[derive(Clone, Debug)]
pub(super) struct BlockNode {
    directory: PathBuf,
    name: String,
    /// Major and minor number, as in `7:0`.
    number: String,
}

impl PartialEq for BlockNode {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl BlockNode {
    /// The device of that number.
    pub fn numbered(device: u64) -> Option<Self> {
        let (major, minor) = (libc::major(device), libc::minor(device));
        let link = format!("/sys/dev/block/{major}:{minor}");
        Self::in_directory(std::fs::canonicalize(link).ok()?)
    }

    /// The device that a path leads to.
    pub fn at(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let is_device = metadata.file_type().is_block_device();
        is_device.then(|| Self::numbered(metadata.rdev()))?
    }

    fn in_directory(directory: PathBuf) -> Option<Self> {
        let name = directory.file_name()?.to_str()?.to_owned();
        let number = std::fs::read_to_string(directory.join("dev")).ok()?;
        Some(Self {
            number: number.trim_end().to_owned(),
            directory,
            name,
        })
    }

    /// The loop devices over a file.
    pub fn loops_over(file: &Metadata) -> impl Iterator<Item = Self> {
        let devices = std::fs::read_dir("/sys/block").into_iter().flatten();
        let file = (file.dev(), file.ino());
        devices.flatten().filter_map(move |entry| {
            let name = entry.file_name();
            let is_loop = name.to_str()?.starts_with(LOOP_PREFIX);
            let over = is_loop.then(|| backing_of(&entry.path()))??;
            (over == file).then(|| Self::in_directory(entry.path().canonicalize().ok()?))?
        })
    }

    /// The kernel's name, such as `loop0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a person calls it: device-mapper tables have names of their own.
    pub fn shown(&self) -> String {
        match std::fs::read_to_string(self.directory.join("dm/name")) {
            Ok(name) => format!("/dev/mapper/{}", name.trim_end()),
            Err(_) => format!("/dev/{}", self.name),
        }
    }

    /// Major and minor number, as in `7:0`.
    pub fn number(&self) -> &str {
        &self.number
    }

    /// Whether the kernel lets nobody write to it.
    pub fn is_read_only(&self) -> bool {
        std::fs::read(self.directory.join("ro")).is_ok_and(|flag| flag.starts_with(b"1"))
    }

    /// The devices that are made of it.
    pub fn holders(&self) -> Vec<Self> {
        let holders = std::fs::read_dir(self.directory.join("holders"));
        let holders = holders.into_iter().flatten().flatten();
        let holder = |link: std::fs::DirEntry| Self::in_directory(link.path().canonicalize().ok()?);
        holders.filter_map(holder).collect()
    }

    /// Its partitions.
    pub fn partitions(&self) -> Vec<Self> {
        let parts = std::fs::read_dir(&self.directory);
        let parts = parts.into_iter().flatten().flatten();
        let parts = parts.filter(|part| part.file_type().is_ok_and(|kind| kind.is_dir()));
        let is_partition = |part: &PathBuf| part.join("partition").exists();
        let parts = parts.map(|part| part.path()).filter(is_partition);
        parts.filter_map(Self::in_directory).collect()
    }

    /// The disk that it is a partition of.
    pub fn whole_disk(&self) -> Option<Self> {
        let is_partition = self.directory.join("partition").exists();
        is_partition.then(|| Self::in_directory(self.directory.parent()?.into()))?
    }

    /// The file that a loop device is over, where it can be seen.
    pub fn backing_file(&self) -> Option<Metadata> {
        std::fs::metadata(backing_path(&self.directory)?).ok()
    }
}

/// The path of the file below a loop device, which is that of the process that has attached it.
fn backing_path(directory: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut path = std::fs::read(directory.join("loop/backing_file")).ok()?;
    if path.ends_with(b"\n") {
        path.pop();
    }
    Some(std::ffi::OsString::from_vec(path).into())
}

/// File system and inode of the file below a loop device. Behind the path of a file without a name stands
/// ` (deleted)`, and one of another mount namespace leads nowhere: then the device itself is asked, which only some
/// may.
fn backing_of(directory: &Path) -> Option<(u64, u64)> {
    let path = backing_path(directory)?;
    match std::fs::metadata(path) {
        Ok(found) => Some((found.dev(), found.ino())),
        Err(_) => status_of(&Path::new("/dev").join(directory.file_name()?)),
    }
}

fn status_of(device: &Path) -> Option<(u64, u64)> {
    // `struct loop_info64`, 232 bytes, which begins with device and inode of the file.
    let mut status = [0_u64; 29];
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let device: File = options.open(device).ok()?;
    // SAFETY: the descriptor is open, and the kernel stores 232 bytes where there is room for them.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, status.as_mut_ptr()) };
    (done == 0).then_some((status[0], status[1]))
}
