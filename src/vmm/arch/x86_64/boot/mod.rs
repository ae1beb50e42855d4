//! From kernel, initrd and command line in files to bytes in guest memory and the state of the first vCPU.
//!
//! Nothing here touches KVM: what [`finish`] returns is plain data ([`BootState`]), which whoever builds vCPUs applies.

mod bzimage;
mod command_line;
mod elf;
mod error;
mod initrd;
mod linux64;
mod pvh;
mod registers;
mod symbols;

pub use command_line::{CommandLine, Share};
pub use error::{Error, Place};
pub use initrd::compression;
pub use registers::{BootState, Registers, Segment};
pub use symbols::cpu_limit;

use super::address_map::{CMDLINE, CMDLINE_BYTES, ram_ranges};
use crate::config::Memory;
use crate::memory::{GuestMemory, populate};
use linux_loader::bootparam::setup_header;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress, ReadVolatile};

/// What a kernel or initrd is read from.
pub trait Image: Read + ReadVolatile + Seek {}
impl<T: Read + ReadVolatile + Seek> Image for T {}

/// How a loaded kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Protocol {
    /// 32-bit entry named by an ELF note (Xen docs/misc/pvh.pandoc, "x86/HVM direct boot ABI").
    Pvh {
        /// Physical address of the entry point.
        entry: GuestAddress,
    },
    /// 64-bit entry (Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
    Linux64 {
        /// Physical address of the entry point.
        entry: GuestAddress,
        /// The setup header of a bzImage; an ELF image has none.
        header: Option<setup_header>,
    },
}

/// A kernel in guest memory.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedKernel {
    /// How to enter it.
    pub protocol: Protocol,
    /// All memory that it fills or needs before it manages memory itself (its bss, or the decompressor's room).
    pub range: Range<u64>,
    /// The longest command line that it takes, in bytes without the NUL.
    pub cmdline_bytes: usize,
    /// The last address at which its initrd may end.
    pub initrd_max: u64,
}

/// Loads a kernel image: ELF `vmlinux` or bzImage.
///
/// # Errors
/// Says what is wrong with the image, or what is too small for it.
pub fn load_kernel<I: Image>(
    ram: &GuestMemory,
    memory: Memory,
    image: &mut I,
) -> Result<LoadedKernel, Error> {
    let bytes = image.seek(SeekFrom::End(0)).map_err(Error::Read)?;
    if bytes == 0 {
        return Err(Error::Empty);
    }
    let mut start = vec![0; bytes.min(bzimage::HEADER_END as u64) as usize];
    image.rewind().map_err(Error::Read)?;
    image.read_exact(&mut start).map_err(Error::Read)?;

    let room = low_ram(memory);
    if elf::is_elf(&start) {
        elf::load(ram, room, image, bytes)
    } else if bzimage::is_bzimage(&start) {
        bzimage::load(ram, room, image, bytes, &start)
    } else {
        let mut start = vec![0; bytes.min(error::DISK_HEAD_BYTES as u64) as usize];
        image.rewind().map_err(Error::Read)?;
        image.read_exact(&mut start).map_err(Error::Read)?;
        Err(error::name_format(&start))
    }
}

/// Reads the next bytes of an image straight into guest memory.
fn read_into<I: Image>(
    ram: &GuestMemory,
    start: u64,
    image: &mut I,
    bytes: u64,
) -> Result<(), Error> {
    let (start, bytes) = (GuestAddress(start), bytes as usize);
    populate(ram, start, bytes);
    ram.read_exact_volatile_from(start, image, bytes)
        .map_err(Error::memory)
}

/// Everything else that a kernel wants to find, written to guest memory; returns the first vCPU's state.
///
/// # Errors
/// When the command line is too long, or the initrd does not fit beside the kernel.
pub fn finish<I: Image>(
    ram: &GuestMemory,
    memory: Memory,
    kernel: &LoadedKernel,
    initrd: Option<&mut I>,
    cmdline: &CommandLine,
    rsdp: GuestAddress,
) -> Result<BootState, Error> {
    let cmdline = cmdline.fit(kernel.cmdline_bytes.min(CMDLINE_BYTES - 1))?;
    write_cmdline(ram, &cmdline)?;
    let initrd = match initrd {
        Some(image) => Some(initrd::load(ram, low_ram(memory), kernel, image)?),
        None => None,
    };
    let handoff = Handoff {
        memory,
        cmdline_bytes: cmdline.len(),
        initrd,
        rsdp,
    };
    match kernel.protocol {
        Protocol::Pvh { entry } => pvh::prepare(ram, entry, &handoff),
        Protocol::Linux64 { entry, header } => linux64::prepare(ram, entry, header, &handoff),
    }
}

/// What both protocols pass on, each in its own structures.
struct Handoff {
    memory: Memory,
    cmdline_bytes: usize,
    initrd: Option<Range<u64>>,
    rsdp: GuestAddress,
}

fn write_cmdline(ram: &GuestMemory, text: &str) -> Result<(), Error> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    ram.write_slice(&bytes, CMDLINE).map_err(Error::memory)
}

/// Kernels and initrds live in the RAM below the MMIO gap.
fn low_ram(memory: Memory) -> Range<u64> {
    let end = ram_ranges(memory).first().map_or(0, |range| range.1 as u64);
    super::address_map::HIGH_RAM.0..end
}
