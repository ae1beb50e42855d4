//! What can be wrong with a kernel, an initrd or a command line.

use super::Share;
use crate::config::{Advice, Memory, Setting, advice};
use std::fmt;
use std::io;
use vm_memory::GuestMemoryError;

/// Why a guest cannot be booted from these files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    /// Something that is neither of the two formats.
    #[error("neither an ELF image (vmlinux) nor a bzImage{}", match .looks_like {
        Some(format) => format!(": it looks like {format}"),
        None => String::new(),
    })]
    Format {
        /// What it is, where that can be told.
        looks_like: Option<&'static str>,
    },
    /// An ELF file for another machine or purpose.
    #[error("not a 64-bit x86 ELF image ({0})")]
    ElfKind(String),
    /// ELF structures that point outside the file or contradict each other.
    #[error("damaged ELF image: {0}")]
    ElfDamaged(String),
    /// A bzImage without what is needed.
    #[error("not a bootable bzImage: {0}")]
    BzImage(String),
    /// The file ends before its headers say so.
    #[error("the file is truncated: {what} ends at byte {end}, and the file has {bytes}")]
    Truncated {
        /// Which part is cut.
        what: &'static str,
        /// Where it should end.
        end: u64,
        /// Size of the file.
        bytes: u64,
    },
    /// The image wants memory that is not the kernel's to have.
    #[error("the kernel wants memory at {}, where {why}", Place(*.start, *.end))]
    Misplaced {
        /// First address.
        start: u64,
        /// First address behind.
        end: u64,
        /// What is there instead.
        why: &'static str,
    },
    /// Guest RAM ends before the kernel does.
    #[error("too little guest memory: the kernel needs {} and RAM there ends at {}",
        Place(*.start, *.end), Memory::from_bytes(*.ram_end))]
    KernelRoom {
        /// First address.
        start: u64,
        /// First address behind.
        end: u64,
        /// End of RAM below the MMIO gap.
        ram_end: u64,
    },
    /// No room for the initrd.
    #[error(
        "too little guest memory for the initrd: it has {bytes} bytes, and between the kernel and \
        the end of usable RAM there are {room}"
    )]
    InitrdRoom {
        /// Size of the initrd.
        bytes: u64,
        /// Bytes that are free for it.
        room: u64,
    },
    /// The initrd has no bytes.
    #[error("the initrd is empty")]
    InitrdEmpty,
    /// No kernel could unpack it.
    #[error("the file is no initrd: it looks like {0}")]
    InitrdFormat(&'static str),
    /// The initrd cannot be read.
    #[error("the initrd cannot be read")]
    InitrdRead(#[source] io::Error),
    /// A command line that this kernel would cut.
    #[error("the kernel command line has {bytes} bytes, and this kernel takes {limit}: {}", list(.shares))]
    CmdlineTooLong {
        /// Its length.
        bytes: usize,
        /// The most that is possible.
        limit: usize,
        /// What takes how much, the most first.
        shares: Vec<Share>,
    },
    /// Guest memory has no such address.
    #[error("guest memory cannot be written")]
    Memory(#[source] io::Error),
}

impl Error {
    pub(super) fn memory(source: GuestMemoryError) -> Self {
        Error::Memory(io::Error::other(source))
    }

    /// Is it the initrd, not the kernel, that is to blame?
    pub fn concerns_initrd(&self) -> bool {
        matches!(
            self,
            Error::InitrdRoom { .. }
                | Error::InitrdEmpty
                | Error::InitrdFormat(_)
                | Error::InitrdRead(_)
        )
    }

    /// The way out, where there is a general one.
    pub fn help(&self) -> Option<Advice> {
        match self {
            Error::KernelRoom { .. } | Error::InitrdRoom { .. } => {
                Some(advice!("give the VM more {}", Setting::Memory))
            }
            Error::CmdlineTooLong { shares, .. } => Some(match shares.first().map(|s| s.what) {
                Some("cmdline") => advice!("shorten {}", Setting::Cmdline),
                Some("command" | "env") => {
                    "put long values into a file of the image or of a disk, where the service reads them".into()
                }
                _ => "give the VM fewer disks and interfaces".into(),
            }),
            Error::InitrdEmpty | Error::InitrdFormat(_) | Error::InitrdRead(_) => {
                Some(advice!("build one with `images/build minimal`|leave out {}", Setting::Initrd))
            }
            Error::Memory(_) => None,
            _ => Some(advice!("build one with `kernels/build`|name another with {}", Setting::Kernel)),
        }
    }
}

fn list(shares: &[Share]) -> String {
    let shares: Vec<_> = shares.iter().map(Share::to_string).collect();
    shares.join(", ")
}

/// A range of addresses for people.
#[derive(Clone, Copy, Debug)]
pub struct Place(pub u64, pub u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.0, self.1)
    }
}

/// Recognizes what people pass by mistake.
pub(super) fn name_format(start: &[u8]) -> Error {
    const ARM64_MAGIC: usize = 0x38;
    let looks_like = match start {
        [0x1f, 0x8b, ..] => Some("a gzip file; unpack it first"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("an xz file; unpack it first"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("a zstd file; unpack it first"),
        [b'0', b'7', b'0', b'7', ..] => Some("a cpio archive, which is an initrd"),
        [b'#', b'!', ..] => Some("a script"),
        [b'B', b'Z', b'h', ..] => Some("a bzip2 file; unpack it first"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Some("an lz4 file; unpack it first"),
        _ if start.get(ARM64_MAGIC..ARM64_MAGIC + 4) == Some(b"ARM\x64") => Some("an arm64 kernel"),
        _ => disk_image(start),
    };
    Error::Format { looks_like }
}

/// How much of a file [`disk_image`] looks at.
pub(super) const DISK_HEAD_BYTES: usize = 2048;

/// What is a disk's content and so neither a kernel nor an initrd.
pub(super) fn disk_image(start: &[u8]) -> Option<&'static str> {
    let has = |offset: usize, magic: &[u8]| {
        start
            .get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    Some(match start {
        [b'Q', b'F', b'I', 0xfb, ..] => "a qcow2 disk image",
        [b'K', b'D', b'M', b'V', ..] => "a VMDK disk image",
        _ if has(0, b"vhdxfile") => "a VHDX disk image",
        _ if has(0, b"conectix") => "a VHD disk image",
        _ if has(1024, b"\xe2\xe1\xf5\xe0") => "the image of an erofs file system, as roots are",
        _ if has(512, b"EFI PART") => "a disk with partitions",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_recognised() {
        for (offset, magic, name) in [
            (0, &b"QFI\xfb\0\0\0\x03"[..], "qcow2"),
            (0, b"KDMV", "VMDK"),
            (0, b"vhdxfile", "VHDX"),
            (0, b"conectix", "VHD"),
            (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
            (512, b"EFI PART", "partitions"),
        ] {
            let mut start = vec![0; DISK_HEAD_BYTES];
            start[offset..offset + magic.len()].copy_from_slice(magic);
            assert!(disk_image(&start).unwrap().contains(name), "{name}");
            assert!(name_format(&start).to_string().contains(name), "{name}");
            assert_eq!(disk_image(&start[..offset]), None);
        }
        assert_eq!(disk_image(b"070701"), None);
        assert!(name_format(b"BZh9").to_string().contains("bzip2"));
    }
}
