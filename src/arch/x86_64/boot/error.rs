//! What can be wrong with a kernel, an initrd or a command line.

use crate::config::Memory;
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
    /// The initrd cannot be read.
    #[error("the initrd cannot be read")]
    InitrdRead(#[source] io::Error),
    /// A command line that this kernel would cut.
    #[error("the kernel command line has {bytes} bytes, and this kernel takes {limit}")]
    CmdlineTooLong {
        /// Its length.
        bytes: usize,
        /// The most that is possible.
        limit: usize,
    },
    /// Guest memory has no such address.
    #[error("guest memory cannot be written")]
    Memory(#[source] GuestMemoryError),
}

impl Error {
    /// Is it the initrd, not the kernel, that is to blame?
    pub fn concerns_initrd(&self) -> bool {
        matches!(
            self,
            Error::InitrdRoom { .. } | Error::InitrdEmpty | Error::InitrdRead(_)
        )
    }

    /// The way out, where there is a general one.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Error::KernelRoom { .. } | Error::InitrdRoom { .. } => {
                Some("give the VM more --memory")
            }
            Error::CmdlineTooLong { .. } => {
                Some("shorten --cmdline, or put settings into the image")
            }
            Error::InitrdEmpty | Error::InitrdRead(_) => {
                Some("build one with `images/build minimal`, or leave out --initrd")
            }
            Error::Memory(_) => None,
            _ => Some("build one with `kernels/build`, or pass --kernel"),
        }
    }
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
        _ if start.get(ARM64_MAGIC..ARM64_MAGIC + 4) == Some(b"ARM\x64") => Some("an arm64 kernel"),
        _ => None,
    };
    Error::Format { looks_like }
}
