//! Raw image files, block devices and ranges of files: opened, locked and measured.

mod block_node;
mod content;
mod error;
mod extents;
mod format;
mod given;
mod guest_mount;
mod holder;
mod host_use;
mod lock;
mod make;
mod partitions;
mod stamp;

pub use error::Error;
pub use extents::{DiskExtents, Place};
pub use format::ImageFormat;
pub use guest_mount::{GuestMount, Unmountable};
pub use holder::Holder;
pub use host_use::HostUse;
pub use make::make_ext4;
pub use stamp::Stamp;

use kvmlet_sys::ring::Medium;
use lock::{claim, lock};
use rustix::fs::{
    AtFlags, FallocateFlags, StatxFlags, fallocate, fstat, futimens, ioctl_blkpbszget,
    ioctl_blksszget, statx,
};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The unit of the virtio block protocol, whatever the medium's own blocks are.
const SECTOR_BYTES: u32 = 512;
/// What O_DIRECT is taken to demand where the kernel does not say (STATX_DIOALIGN came with Linux 6.1).
const SAFE_ALIGNMENT: u32 = 4096;

/// What a disk is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The smallest unit that should be asked for, in bytes; a power of two, at least 512.
    pub logical_bytes: u32,
    /// The unit that the medium works in, in bytes; a power of two, at least the logical one.
    pub physical_bytes: u32,
}

/// What O_DIRECT demands of a request.
#[derive(Clone, Copy, Debug)]
struct Alignment {
    memory: u32,
    offset: u32,
}

/// An open disk. It is locked until the value is dropped.
#[derive(Debug)]
pub struct DiskFile {
    path: PathBuf,
    file: File,
    is_device: bool,
    direct: Option<(File, Alignment)>,
}

impl DiskFile {
    /// Opens and locks a disk: one writer, or any number of readers (open-file-description locks, fcntl(2)). What
    /// the host itself does with it counts as well.
    ///
    /// # Errors
    /// Whatever stands in the way, with the path.
    pub fn open(path: &Path, read_only: bool, direct: bool) -> Result<Self, Error> {
        Self::open_at(path, path, read_only, direct)
    }

    /// Opens what is `at` one path, and is called by another.
    fn open_at(at: &Path, path: &Path, read_only: bool, direct: bool) -> Result<Self, Error> {
        let refused = |source| Error::Open {
            path: path.into(),
            read_only,
            source,
        };
        // A look before opening, because opening a FIFO or a tape does something.
        let found = std::fs::metadata(at).map_err(refused)?;
        let is_device = check_kind(&found, path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(!read_only);
        let claimed = is_device && !read_only;
        let file = match claimed {
            true => claim(&options, at, path, &found)?,
            false => options.open(at),
        };
        let file = file.map_err(refused)?;
        refuse_another(&file, &found, path)?;
        lock(&file, path, read_only)?;
        refuse_host_use(&file, path, is_device, read_only)?;
        let direct = direct
            .then(|| {
                let opened = options.custom_flags(libc::O_DIRECT).open(at);
                let file = opened.map_err(|source| Error::Direct {
                    path: path.into(),
                    source,
                })?;
                refuse_another(&file, &found, path)?;
                let alignment = direct_alignment(&file);
                Ok((file, alignment))
            })
            .transpose()?;
        Ok(Self {
            path: path.into(),
            file,
            is_device,
            direct,
        })
    }

    /// Refuses what is an image in a format of its own. A guest can write such a header to its raw disk, too:
    /// this only keeps a start back, and nothing is ever read from an image by what its header says.
    ///
    /// # Errors
    /// The format that was recognised, or that the disk cannot be read.
    pub fn refuse_image_formats(&self) -> Result<(), Error> {
        // Before the size: a compressed disk can have less than a sector.
        let found = match ImageFormat::at_start(&self.file) {
            Ok(None) => ImageFormat::at_end(&self.file, self.bytes()?),
            found => found,
        };
        match found {
            Ok(None) => Ok(()),
            Ok(Some(format)) => Err(Error::Format {
                path: self.path.clone(),
                format,
            }),
            Err(source) => Err(self.unreadable(source)),
        }
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Read {
            path: self.path.clone(),
            source,
        }
    }

    /// The path by which it was opened, or what it is called.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size in bytes as it is now; never less than a sector.
    ///
    /// # Errors
    /// When the kernel does not say, or there is nothing.
    pub fn bytes(&self) -> Result<u64, Error> {
        let bytes = match self.is_device {
            true => device_bytes(&self.file),
            // Not by statx(2), which is not on the list of who looks while the guest runs.
            false => fstat(&self.file)
                .map(|found| found.st_size.unsigned_abs())
                .map_err(Into::into),
        };
        let path = || self.path.clone();
        match bytes {
            Ok(bytes) if bytes < SECTOR_BYTES.into() => Err(Error::Empty {
                path: path(),
                bytes,
                mount: None,
            }),
            Ok(bytes) => Ok(bytes),
            Err(source) => Err(Error::Measure {
                path: path(),
                source,
            }),
        }
    }

    /// Block sizes: a device's own, and for a file what its file system works in.
    pub fn geometry(&self) -> Geometry {
        let (logical, physical) = if self.is_device {
            (
                ioctl_blksszget(&self.file).unwrap_or(SECTOR_BYTES),
                ioctl_blkpbszget(&self.file).unwrap_or(SECTOR_BYTES),
            )
        } else {
            let logical = match &self.direct {
                Some((_, alignment)) => alignment.offset,
                None => SECTOR_BYTES,
            };
            (logical, SAFE_ALIGNMENT)
        };
        let sane = |bytes: u32| match bytes.is_power_of_two() {
            true => bytes.clamp(SECTOR_BYTES, 1 << 20),
            false => SECTOR_BYTES,
        };
        let logical_bytes = sane(logical);
        Geometry {
            logical_bytes,
            physical_bytes: sane(physical).max(logical_bytes),
        }
    }

    /// What a ring for it is for.
    pub fn medium(&self) -> Medium {
        match self.is_device {
            true => Medium::Device,
            false => Medium::File,
        }
    }

    /// Whether all transfers go through the page cache.
    pub fn is_cached(&self) -> bool {
        self.direct.is_none()
    }

    /// Whether parts of it can be given back to the host, leaving zeroes.
    pub fn can_punch(&self) -> bool {
        // Behind the end there is nothing to lose, and a file system that cannot says so all the same.
        // A device gets the benefit of the doubt, which costs a refusal later.
        if self.is_device {
            return true;
        }
        let Ok(before) = fstat(&self.file) else {
            return false;
        };
        let end = before.st_size.cast_unsigned().next_multiple_of(4096);
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let can = fallocate(&self.file, mode, end, 4096).is_ok();
        // Nothing was written, but the file says so now, and a guest that remembers it would not be let go on.
        let _ = futimens(&self.file, &stamp::as_it_was(&before));
        can
    }

    /// The descriptor for a transfer at `offset` of `bytes`: past the page cache if that was asked for and
    /// `is_aligned` says of its memory that it suits.
    ///
    /// The kernel keeps both ways coherent; a guest that aligns its requests to the logical block size
    /// never meets the other one.
    pub fn descriptor(
        &self,
        offset: u64,
        bytes: u64,
        is_aligned: impl Fn(usize) -> bool,
    ) -> BorrowedFd<'_> {
        match &self.direct {
            Some((file, alignment))
                if (offset | bytes).is_multiple_of(alignment.offset.into())
                    && is_aligned(alignment.memory as usize) =>
            {
                file.as_fd()
            }
            _ => self.file.as_fd(),
        }
    }
}

impl AsFd for DiskFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Refuses what is neither a file nor a block device, and tells whether it is one of the latter.
fn check_kind(found: &Metadata, path: &Path) -> Result<bool, Error> {
    let kind = found.file_type();
    match kind.is_file() || kind.is_block_device() {
        true => Ok(kind.is_block_device()),
        false => Err(Error::Kind {
            path: path.into(),
            directory: kind.is_dir(),
        }),
    }
}

/// Refuses what is not what was looked at: who can change the directory could have it taken for what it is not, or put
/// something there that nobody has locked.
fn refuse_another(file: &File, found: &Metadata, path: &Path) -> Result<(), Error> {
    let opened = file.metadata().map_err(|source| Error::Measure {
        path: path.into(),
        source,
    })?;
    match (opened.dev(), opened.ino()) == (found.dev(), found.ino()) {
        true => Ok(()),
        false => Err(Error::Replaced { path: path.into() }),
    }
}

/// Refuses a disk that the host itself uses: file systems that are mounted take no locks, and nor do loop devices.
fn refuse_host_use(
    file: &File,
    path: &Path,
    is_device: bool,
    read_only: bool,
) -> Result<(), Error> {
    let Ok(metadata) = file.metadata() else {
        return Ok(());
    };
    let found = match is_device {
        true => HostUse::of_device(&metadata, read_only),
        false => HostUse::of_file(&metadata, read_only),
    };
    found.map_or(Ok(()), |by| {
        Err(Error::HostUse {
            path: path.into(),
            read_only,
            by,
        })
    })
}

fn device_bytes(device: &File) -> io::Result<u64> {
    // BLKGETSIZE64 (linux/fs.h) is declared with size_t and stores 64 bits.
    const OPCODE: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<usize>(0x12, 114);
    // SAFETY: this request stores 64 bits where the getter has room for them.
    Ok(unsafe { rustix::ioctl::ioctl(device, rustix::ioctl::Getter::<OPCODE, u64>::new()) }?)
}

fn direct_alignment(file: &File) -> Alignment {
    let told = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok();
    let told = told.filter(|told| told.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
    let known = |value: u32| {
        if value.is_power_of_two() {
            value
        } else {
            SAFE_ALIGNMENT
        }
    };
    match told {
        Some(told) => Alignment {
            memory: known(told.stx_dio_mem_align),
            offset: known(told.stx_dio_offset_align),
        },
        None => Alignment {
            memory: SAFE_ALIGNMENT,
            offset: SAFE_ALIGNMENT,
        },
    }
}

#[cfg(test)]
mod tests;
