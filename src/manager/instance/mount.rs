//! What a service has mounted beside its root.

use crate::VolumeName;
use kvmlet_control::agent::channel::{MountSpec, SERIAL};
use serde::{Deserialize, Serialize};

/// One mount of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Mount {
    /// A volume, on a disk of its own.
    Volume {
        /// Which one.
        name: VolumeName,
        /// Where, absolute.
        target: String,
        /// The guest cannot change it.
        read_only: bool,
        /// What the image has at the target is copied into it while it is empty.
        filled: bool,
    },
    /// A directory of the host as it was when the instance was made, to be read only, on a disk of its own.
    Directory {
        /// The directory.
        source: String,
        /// Where, absolute.
        target: String,
    },
    /// Memory of the guest's.
    Tmpfs {
        /// Where, absolute.
        target: String,
        /// As mount(2) has them.
        flags: u32,
        /// What the file system is told: `size=64m,mode=1777`.
        options: String,
    },
    /// How big `/dev/shm` is, in bytes.
    Shm {
        /// No more is kept there.
        bytes: u64,
    },
}

impl Mount {
    /// The serial number of the disk that the mount at that place in the list is on.
    pub fn serial(index: usize) -> String {
        format!("mount-{index}")
    }

    /// Where it is mounted.
    pub fn target(&self) -> &str {
        match self {
            Self::Volume { target, .. }
            | Self::Directory { target, .. }
            | Self::Tmpfs { target, .. } => target,
            Self::Shm { .. } => "/dev/shm",
        }
    }

    /// What the guest is told of the mount at that place in the list.
    pub(super) fn spec(&self, index: usize) -> MountSpec {
        let disk = || format!("{SERIAL}{}", Self::serial(index)).into_bytes();
        let flags = |flags: libc::c_ulong| flags as u32;
        let (source, fstype, flags, options) = match self {
            Self::Volume {
                read_only: true, ..
            } => (disk(), "ext4", flags(libc::MS_RDONLY), ""),
            // The time of each read is worth no write.
            Self::Volume { .. } => (disk(), "ext4", flags(libc::MS_NOATIME), ""),
            Self::Directory { .. } => (disk(), "erofs", flags(libc::MS_RDONLY), ""),
            Self::Tmpfs { flags, options, .. } => {
                (b"tmpfs".to_vec(), "tmpfs", *flags, options.as_str())
            }
            Self::Shm { .. } => (
                b"shm".to_vec(),
                "tmpfs",
                flags(libc::MS_REMOUNT | libc::MS_NOSUID | libc::MS_NODEV),
                "",
            ),
        };
        let size = match self {
            Self::Shm { bytes } => format!("size={bytes}"),
            _ => options.into(),
        };
        MountSpec {
            flags,
            source,
            target: self.target().into(),
            fstype: fstype.into(),
            options: size.into(),
            filled: matches!(self, Self::Volume { filled: true, .. }),
        }
    }
}
