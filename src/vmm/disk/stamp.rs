//! When a disk's file was written last.

use rustix::fs::{FileType, Stat, Timespec, Timestamps, UTIME_OMIT, fstat};
use std::io;
use std::os::fd::AsFd;

/// A file, and when it was written last: what tells that it is not as a guest remembers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The device that it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// When it was changed last, in nanoseconds since 1970.
    pub changed: i128,
}

/// Times that a file had when it was looked at, for it to have them again.
pub(super) fn as_it_was(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec.cast_signed(),
        },
    }
}

impl Stamp {
    /// Of a file; none of a block device, which does not tell.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of(file: impl AsFd) -> io::Result<Option<Self>> {
        let stat = fstat(file)?;
        let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
        Ok(is_file.then(|| Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            changed: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
        }))
    }

    /// Whether it is the same file as another, and has been written to since.
    pub fn is_later_than(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode) && self.changed != other.changed
    }
}
