//! What a directory's data is: blocks, each with its entries first and their names behind. All names are in the order of
//! their bytes, so that the kernel finds one by bisection.

use crate::tree::Kind;

const BLOCK: usize = crate::tree::BLOCK as usize;
const ENTRY: usize = 12;

/// How a name in a directory is written.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Among them `.` and `..`.
    pub name: &'a [u8],
    /// The inode's number.
    pub inode: u64,
    /// What [`entry_type`] says.
    pub kind: u8,
}

/// The kind of a file, in an entry.
pub fn entry_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory(_) => 2,
        Kind::Character(_) => 3,
        Kind::Block(_) => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}

/// The length of a directory's data, from its names in their order.
pub fn length<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut full, mut used) = (0, 0);
    for name in names {
        let needs = ENTRY + name.len();
        if used + needs > BLOCK {
            full += BLOCK as u64;
            used = 0;
        }
        used += needs;
    }
    full + used as u64
}

/// A directory's data, from its entries in the order of their names.
pub fn encode(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut data = Vec::new();
    let (mut from, mut used) = (0, 0);
    for (number, entry) in entries.iter().enumerate() {
        let needs = ENTRY + entry.name.len();
        if used + needs > BLOCK {
            block(&entries[from..number], &mut data);
            data.resize(data.len().next_multiple_of(BLOCK), 0);
            (from, used) = (number, 0);
        }
        used += needs;
    }
    block(&entries[from..], &mut data);
    data
}

/// Entries that fit into a block.
fn block(entries: &[Entry<'_>], data: &mut Vec<u8>) {
    let mut name_at = entries.len() * ENTRY;
    for entry in entries {
        data.extend_from_slice(&entry.inode.to_le_bytes());
        data.extend_from_slice(&(name_at as u16).to_le_bytes());
        data.extend_from_slice(&[entry.kind, 0]);
        name_at += entry.name.len();
    }
    for entry in entries {
        data.extend_from_slice(entry.name);
    }
}
