//! Disks that a guest's init mounts before anything else: what it could not mount is told before the boot.

use super::content::{Content, FileSystem, Kind};
use super::error::MAKE_ROOT;
use super::partitions::{Partition, Scheme};
use super::{DiskExtents, DiskFile, Error};
use std::fmt;
use std::path::Path;

/// What a guest's init mounts a disk as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestMount {
    /// As the root, or what lies below it: erofs or ext4.
    Root,
    /// As what keeps the changes of the root: ext4.
    Scratch,
}

impl GuestMount {
    fn file_systems(self) -> &'static str {
        match self {
            Self::Root => "erofs or ext4",
            Self::Scratch => "ext4",
        }
    }

    fn takes(self, found: &FileSystem) -> bool {
        self == Self::Root || found.kind == Kind::Ext4
    }

    /// What is missing of a file system that it takes, on a disk of that many bytes.
    fn misses(self, found: &FileSystem, disk: u64) -> Option<Why> {
        let file_system = found.bytes;
        match file_system > disk.into() {
            true => Some(Why::CutOff { file_system, disk }),
            false => (found.needs_recovery && self == Self::Root).then_some(Why::NeedsRecovery),
        }
    }
}

impl fmt::Display for GuestMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Scratch => "scratch disk",
        })
    }
}

/// Why a guest's init could not mount a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmountable {
    mount: GuestMount,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    Partitioned(Scheme, Option<Partition>),
    Other(&'static str),
    Nothing,
    Unknown,
    CutOff { file_system: u128, disk: u64 },
    NeedsRecovery,
}

impl Unmountable {
    /// What the guest wanted it for.
    pub fn mount(&self) -> GuestMount {
        self.mount
    }

    /// What a person can do about it.
    pub(super) fn way_out(&self, disk: &Path) -> String {
        let disk = disk.display();
        match (&self.why, self.mount) {
            (Why::Partitioned(_, Some(part)), _) => format!(
                "take partition {} out: `dd if={disk} of=IMAGE bs=1M iflag=skip_bytes,count_bytes skip={} count={}`",
                part.number, part.offset, part.bytes
            ),
            (Why::CutOff { .. }, _) => "copy or download it again, whole".into(),
            (Why::NeedsRecovery, _) => format!("have it repaired: `e2fsck -fy {disk}`"),
            (Why::Nothing, GuestMount::Scratch) => format!("make one: `mkfs.ext4 {disk}`"),
            (_, GuestMount::Scratch) => {
                format!(
                    "name another one, or make it anew, which destroys what it holds: `mkfs.ext4 {disk}`"
                )
            }
            (_, GuestMount::Root) => MAKE_ROOT.into(),
        }
    }
}

impl fmt::Display for Unmountable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.mount.file_systems();
        match &self.why {
            Why::Partitioned(scheme, Some(_)) => {
                write!(f, "is a disk with partitions ({}), and the guest wants the file system alone", scheme.name())
            }
            Why::Partitioned(scheme, None) => {
                write!(f, "is a disk with partitions ({}), of which none holds {wanted}", scheme.name())
            }
            Why::Other(name) => write!(f, "does not hold {wanted}: it is {name}"),
            Why::Nothing => write!(f, "does not hold {wanted}: it is empty"),
            Why::Unknown => write!(f, "does not hold {wanted}"),
            Why::CutOff { file_system, disk } => write!(
                f,
                "is cut off: its file system has {file_system} bytes, and {disk} are there"
            ),
            Why::NeedsRecovery => {
                f.write_str("was not unmounted, and its journal cannot be written back, because it is only read")
            }
        }
    }
}

impl DiskFile {
    /// Refuses what a guest's init could not mount. A guest can write whatever it likes to its scratch disk: this
    /// only keeps a start back.
    ///
    /// # Errors
    /// What stands in the way, or that the disk cannot be read.
    pub fn refuse_unmountable(&self, mount: GuestMount) -> Result<(), Error> {
        let disk = self.bytes()?;
        let content = Content::of(&self.file).map_err(|source| self.unreadable(source))?;
        let why = match content {
            Content::FileSystem(found) if mount.takes(&found) => match mount.misses(&found, disk) {
                Some(why) => why,
                None => return Ok(()),
            },
            Content::FileSystem(_) => Why::Other("erofs, which cannot be written to"),
            Content::Partitions(scheme, partitions) => {
                let holds = |part: &Partition| {
                    let found = FileSystem::at(&self.file, part.offset);
                    found.is_ok_and(|found| found.is_some_and(|found| mount.takes(&found)))
                };
                Why::Partitioned(scheme, partitions.into_iter().find(holds))
            }
            Content::Other(name) => Why::Other(name),
            Content::Nothing => Why::Nothing,
            Content::Unknown => Why::Unknown,
        };
        Err(Error::Unmountable {
            path: self.path.clone(),
            why: Unmountable { mount, why },
        })
    }
}

impl DiskExtents {
    /// Refuses what a guest's init could not mount, as far as the first range tells.
    ///
    /// # Errors
    /// What stands in the way, or that the file cannot be read.
    pub fn refuse_unmountable(&self, mount: GuestMount) -> Result<(), Error> {
        let (first, offset) = (self.first(), self.at(0).map_or(0, |place| place.offset));
        let found =
            FileSystem::at(&first.file, offset).map_err(|source| first.unreadable(source))?;
        let why = match found.filter(|found| mount.takes(found)) {
            Some(found) => mount.misses(&found, self.bytes()),
            None => Some(Why::Unknown),
        };
        why.map_or(Ok(()), |why| {
            Err(Error::Unmountable {
                path: first.path.clone(),
                why: Unmountable { mount, why },
            })
        })
    }
}
