//! What the VMM tells a guest at entry, whichever boot protocol it used.

use crate::mmio::{read8, read32, read64};

/// The boot protocol by which the guest was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Linux 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst).
    Linux64,
    /// PVH (Xen xen/include/public/arch-x86/hvm/start_info.h).
    Pvh,
}

/// Memory map entry type of RAM, the same in e820 and in the PVH memory map.
pub const RAM: u32 = 1;

/// One entry of the memory map.
#[derive(Clone, Copy, Debug)]
pub struct MemoryEntry {
    /// First physical address.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
    /// [`RAM`], or another e820 type.
    pub kind: u32,
}

impl MemoryEntry {
    /// First physical address after the entry.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }
}

/// Offsets in boot_params (Linux Documentation/arch/x86/zero-page.rst).
mod boot_params {
    pub const RSDP: u64 = 0x70;
    pub const COMMAND_LINE_HIGH: u64 = 0xc8;
    pub const E820_ENTRIES: u64 = 0x1e8;
    pub const COMMAND_LINE: u64 = 0x228;
    pub const E820_TABLE: u64 = 0x2d0;
    /// Size of a packed `struct boot_e820_entry`.
    pub const E820_ENTRY_BYTES: u64 = 20;
}

/// Offsets in `struct hvm_start_info`, version 1.
mod start_info {
    pub const MAGIC: u64 = 0;
    pub const VERSION: u64 = 4;
    pub const COMMAND_LINE: u64 = 24;
    pub const RSDP: u64 = 32;
    pub const MEMORY_MAP: u64 = 40;
    pub const MEMORY_MAP_ENTRIES: u64 = 48;
    /// Size of a `struct hvm_memmap_table_entry`.
    pub const ENTRY_BYTES: u64 = 24;
}

/// Magic number of `struct hvm_start_info` ("xEn3" with the 0x80 bit of the "E" set).
pub const START_INFO_MAGIC: u32 = 0x336e_c578;

/// What the VMM handed over.
#[derive(Debug)]
pub struct BootInfo {
    /// The protocol of entry.
    pub protocol: Protocol,
    /// Physical address of boot_params or of hvm_start_info.
    pub handed_over: u64,
    /// Physical address of the ACPI RSDP; 0 if the VMM gave none.
    pub rsdp: u64,
    /// The kernel command line; empty if there is none or it is not UTF-8.
    pub command_line: &'static str,
    map_start: u64,
    map_entries: u64,
    map_entry_bytes: u64,
}

impl BootInfo {
    pub(crate) fn new(protocol: Protocol, handed_over: u64) -> Self {
        match protocol {
            Protocol::Linux64 => {
                let low = read32(handed_over + boot_params::COMMAND_LINE);
                let high = read32(handed_over + boot_params::COMMAND_LINE_HIGH);
                Self {
                    protocol,
                    handed_over,
                    rsdp: read64(handed_over + boot_params::RSDP),
                    command_line: text(u64::from(high) << 32 | u64::from(low)),
                    map_start: handed_over + boot_params::E820_TABLE,
                    map_entries: read8(handed_over + boot_params::E820_ENTRIES).into(),
                    map_entry_bytes: boot_params::E820_ENTRY_BYTES,
                }
            }
            Protocol::Pvh => Self {
                protocol,
                handed_over,
                rsdp: read64(handed_over + start_info::RSDP),
                command_line: text(read64(handed_over + start_info::COMMAND_LINE)),
                map_start: read64(handed_over + start_info::MEMORY_MAP),
                map_entries: read32(handed_over + start_info::MEMORY_MAP_ENTRIES).into(),
                map_entry_bytes: start_info::ENTRY_BYTES,
            },
        }
    }

    /// The memory map, in the VMM's order.
    pub fn memory_map(&self) -> impl Iterator<Item = MemoryEntry> + use<> {
        let (start, entry_bytes) = (self.map_start, self.map_entry_bytes);
        (0..self.map_entries).map(move |index| {
            let entry = start + index * entry_bytes;
            MemoryEntry {
                start: read64(entry),
                size: read64(entry + 8),
                kind: read32(entry + 16),
            }
        })
    }

    /// The RAM entries of the memory map.
    pub fn ram(&self) -> impl Iterator<Item = MemoryEntry> + use<> {
        self.memory_map().filter(|entry| entry.kind == RAM)
    }

    /// Magic number and version of hvm_start_info; only meaningful after a PVH entry.
    pub fn start_info_magic_and_version(&self) -> (u32, u32) {
        (
            read32(self.handed_over + start_info::MAGIC),
            read32(self.handed_over + start_info::VERSION),
        )
    }

    /// The value of the command line's word `name=value`.
    pub fn option(&self, name: &str) -> Option<&'static str> {
        self.command_line
            .split_ascii_whitespace()
            .find_map(|word| word.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    }

    /// The number in the command line's word `name=value`, decimal or with 0x. Panics, and
    /// so ends the program, if it is no number.
    pub fn number(&self, name: &str) -> Option<u64> {
        let value = self.option(name)?;
        let number = match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => value.parse(),
        };
        match number {
            Ok(number) => Some(number),
            Err(_) => panic!("command line: {name}={value} is not a number"),
        }
    }
}

/// The NUL-terminated text at `address`.
fn text(address: u64) -> &'static str {
    if address == 0 {
        return "";
    }
    let length = (0..)
        .take_while(|offset| read8(address + offset) != 0)
        .count();
    // SAFETY: the bytes were just read, and the runtime gives out no memory below the image,
    // where the VMM puts the command line.
    let bytes = unsafe { core::slice::from_raw_parts(address as *const u8, length) };
    core::str::from_utf8(bytes).unwrap_or_default()
}
