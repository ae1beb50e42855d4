//! Why a disk cannot be used, and what a person can do about it.

use super::{GuestMount, Holder, HostUse, ImageFormat, SECTOR_BYTES, Unmountable};
use crate::config::{Advice, Setting, advice};
use std::io;
use std::path::PathBuf;

/// Why a disk cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be opened.
    #[error("cannot open disk `{}`{}", .path.display(), if *.read_only { "" } else { " for writing" })]
    Open {
        /// The disk.
        path: PathBuf,
        /// Whether it was to be read only.
        read_only: bool,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Neither a file nor a block device.
    #[error("disk `{}` is {}neither a file nor a block device", .path.display(), if *.directory { "a directory, " } else { "" })]
    Kind {
        /// The disk.
        path: PathBuf,
        /// Whether it is a directory.
        directory: bool,
    },
    /// Whoever has started the VM has it open, and it cannot be used so.
    #[error("disk `{}`, which was given open, {why}", .path.display())]
    Given {
        /// What it is called.
        path: PathBuf,
        /// What stands in the way.
        why: &'static str,
    },
    /// What its path leads to has changed while it was opened.
    #[error("disk `{}` has been put in the place of another one just now", .path.display())]
    Replaced {
        /// The disk.
        path: PathBuf,
    },
    /// The file system has no O_DIRECT.
    #[error("disk `{}` cannot be used without the host's page cache", .path.display())]
    Direct {
        /// The disk.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another VM, another disk of this one, or some other process has it.
    #[error("disk `{}` is in use already{}{}", .path.display(), by_whom(.by.as_ref()), if *.read_only { ", to be written to" } else { "" })]
    Locked {
        /// The disk.
        path: PathBuf,
        /// Whether it was to be read only.
        read_only: bool,
        /// Who has it, if that can be seen.
        by: Option<Holder>,
    },
    /// The host itself uses it.
    #[error("disk `{}` is in use by this host: {by}", .path.display())]
    HostUse {
        /// The disk.
        path: PathBuf,
        /// Whether it was to be read only.
        read_only: bool,
        /// What the host does with it.
        by: HostUse,
    },
    /// A block device that somebody has claimed, or that a disk of which it is a part is.
    #[error("disk `{}` is in use by this host{}: claimed, or part of what is", .path.display(), by_whom(.by.as_ref()))]
    Busy {
        /// The device.
        path: PathBuf,
        /// Who has it, if that can be seen.
        by: Option<Holder>,
    },
    /// Its size or geometry cannot be read.
    #[error("cannot find out the size of disk `{}`", .path.display())]
    Measure {
        /// The disk.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Less than a sector.
    #[error("disk `{}` has {bytes} bytes, less than one sector of {SECTOR_BYTES}", .path.display())]
    Empty {
        /// The disk.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What the guest's init wanted to mount it as.
        mount: Option<GuestMount>,
    },
    /// Its beginning or end cannot be read.
    #[error("cannot read disk `{}`", .path.display())]
    Read {
        /// The disk.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An image in a format of its own, which a guest that takes it as raw would see as garbage and destroy.
    #[error("disk `{}` is not raw: it is {}", .path.display(), .format.name())]
    Format {
        /// The disk.
        path: PathBuf,
        /// What it looks like.
        format: ImageFormat,
    },
    /// A range of a file that the file does not reach.
    #[error("a disk takes bytes of `{}` up to {end}, and it has {bytes}", .path.display())]
    ExtentBeyond {
        /// The file.
        path: PathBuf,
        /// Where the range ends, in bytes.
        end: u64,
        /// The file's size.
        bytes: u64,
    },
    /// A range of what is no file.
    #[error("a disk takes a range of `{}`, which is a block device", .path.display())]
    ExtentKind {
        /// The device.
        path: PathBuf,
    },
    /// It was to be made, and cannot be.
    #[error("cannot make disk `{}`", .path.display())]
    Make {
        /// The disk.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It was to be made, and there is nothing to make it with.
    #[error("cannot make disk `{}`: this host has no mke2fs (mkfs.ext4)", .path.display())]
    MakerMissing {
        /// The disk.
        path: PathBuf,
    },
    /// It was to be made, and who makes it could not.
    #[error("cannot make disk `{}`: mke2fs says: {}", .path.display(), .said.escape_debug())]
    Maker {
        /// The disk.
        path: PathBuf,
        /// What the program said.
        said: String,
    },
    /// The guest is to mount it, and could not.
    #[error("{} `{}` {why}", .why.mount(), .path.display())]
    Unmountable {
        /// The disk.
        path: PathBuf,
        /// What stands in the way.
        why: Unmountable,
    },
}

fn by_whom(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(" by {holder}"))
}

/// How a root comes to be.
pub(super) const MAKE_ROOT: &str =
    "make one of a directory: `mkfs.erofs ROOT DIRECTORY`, or `mkfs.ext4 -d DIRECTORY ROOT 1G`";

impl Error {
    /// The same, of a disk that the guest's init is to mount.
    pub fn to_mount(self, wanted: Option<GuestMount>) -> Self {
        match self {
            Error::Empty { path, bytes, .. } => Error::Empty {
                path,
                bytes,
                mount: wanted,
            },
            other => other,
        }
    }

    /// What a person can do about it.
    pub fn help(&self) -> Advice {
        match self {
            Error::HostUse { by, read_only, .. } => by.way_out(*read_only).into(),
            Error::Unmountable { path, why } => why.way_out(path).into(),
            Error::Open {
                source, read_only, ..
            } => open_help(source, *read_only),
            Error::Empty {
                mount: Some(GuestMount::Scratch),
                ..
            } => advice!(
                "remove it and have one made ({}), or make one: `truncate -s 1G FILE` and `mkfs.ext4 FILE`",
                (Setting::ScratchSize, "1G")
            ),
            Error::Maker { .. } => advice!(
                "give it another size, such as {}, or another place",
                (Setting::ScratchSize, "1G")
            ),
            Error::Direct { .. } => advice!(
                "leave out {}|put the image on another file system",
                Setting::DiskDirect
            ),
            Error::Locked { read_only, .. } => match read_only {
                true => advice!(
                    "stop whoever has it|make it read-only there as well ({})",
                    Setting::DiskReadOnly
                ),
                false => advice!(
                    "stop whoever has it, and name it once; only disks that all open with {} can be shared",
                    Setting::DiskReadOnly
                ),
            },
            _ => self.fixed_help().into(),
        }
    }

    fn fixed_help(&self) -> &'static str {
        match self {
            Error::Kind {
                directory: true, ..
            } => {
                "make an image of what is in it: `mkfs.erofs IMAGE DIRECTORY` for a root, or `mkfs.ext4 -d DIRECTORY IMAGE 1G`"
            }
            Error::Given { .. } => {
                "open it anew, for what the guest is to do with it, and give it to one VM"
            }
            Error::Kind { .. } => "name a raw image file or a block device",
            Error::ExtentBeyond { .. } => {
                "put the whole file there again: an image is pulled again"
            }
            Error::ExtentKind { .. } => "name ranges of regular files, or the device as a disk",
            Error::Replaced { .. } => {
                "try again; if that was not you, put it into a directory that nobody else can write to"
            }
            Error::Make { .. } => "name a file in a directory that this user may write to",
            Error::MakerMissing { .. } => {
                "install e2fsprogs, or make one elsewhere: `truncate -s 1G FILE` and `mkfs.ext4 FILE`"
            }
            Error::Unmountable { .. } => "name a disk with a file system that the guest can mount",
            Error::Busy { .. } | Error::HostUse { .. } => {
                "stop whoever has it; `lsblk` and `fuser` tell"
            }
            Error::Measure { .. } => "check that the device still answers",
            Error::Read { .. } => "check that the file is intact and the device still answers",
            Error::Format { format, .. } => format.way_out(),
            Error::Empty { mount, .. } => match mount {
                Some(GuestMount::Root) => MAKE_ROOT,
                _ => "give it a size, as by `truncate -s 1G FILE`",
            },
            _ => "check the path",
        }
    }
}

/// Only where a file's permissions are what forbids it do other permissions help.
fn open_help(source: &io::Error, read_only: bool) -> Advice {
    match (source.raw_os_error(), read_only) {
        (Some(libc::ENOENT), true) => {
            "check the path; it is that of a file, and nothing is fetched by a name: `images/build` makes images of roots".into()
        }
        (Some(libc::ENOENT), false) => advice!(
            "check the path; an empty disk is made by `truncate -s 1G FILE`, a scratch disk by {}",
            (Setting::ScratchSize, "1G")
        ),
        (Some(libc::EACCES), true) => "give this user read permission".into(),
        (Some(libc::EACCES), false) => advice!(
            "give this user write permission|add {} for a disk that is only read",
            Setting::DiskReadOnly
        ),
        (Some(libc::EROFS), _) => advice!(
            "add {} for a disk that is only read|put it elsewhere",
            Setting::DiskReadOnly
        ),
        (Some(libc::EPERM), _) => {
            "what forbids it is not the file's permissions: for a device those of this container or cgroup, for a file \
             that it is immutable (`lsattr` tells)".into()
        }
        _ => "check the path".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_the_way_out_only_where_they_forbid_it() {
        for (code, read_only, expected) in [
            (libc::ENOENT, true, "`images/build` makes"),
            (libc::ENOENT, false, "`truncate -s 1G FILE`"),
            (libc::EACCES, true, "read permission"),
            (libc::EACCES, false, "write permission"),
            (libc::EROFS, false, "add `disks[].read_only`"),
            (libc::EPERM, false, "not the file's permissions"),
            (libc::ELOOP, false, "check the path"),
            (libc::ENOTDIR, true, "check the path"),
        ] {
            let error = Error::Open {
                path: "d".into(),
                read_only,
                source: io::Error::from_raw_os_error(code),
            };
            let help = error.help().to_string();
            assert!(help.contains(expected), "{code}: {help}");
        }
    }
}
