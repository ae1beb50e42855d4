//! The numbers and records of EROFS, all little-endian, as Linux's fs/erofs/erofs_fs.h describes them.

use crate::tree::Time;

/// The block that an image begins with has 1 KiB for others, then the superblock.
const SUPERBLOCK_OFFSET: usize = 1024;
const BLOCK: usize = crate::tree::BLOCK as usize;
/// An inode's number counts places of this many bytes.
pub const SLOT: u64 = 32;
/// An inode with 32-bit owners, a 64-bit size and a time of its own ("extended").
pub const INODE: usize = 64;
/// Where chunk that is a hole would begin.
pub const NULL_ADDRESS: u32 = u32::MAX;

const MAGIC: u32 = 0xe0f5_e1e2;
const COMPAT_CHECKSUM: u32 = 0x1;
const COMPAT_MTIME: u32 = 0x2;
const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
/// `i_format`: an extended inode.
const EXTENDED: u16 = 1;

/// How an inode's data is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Blocks behind each other.
    Plain = 0,
    /// The same, but what does not fill a block is behind the inode.
    Inline = 2,
    /// A map of chunks is behind the inode.
    Chunks = 4,
}

/// What an image says of itself.
#[derive(Debug)]
pub struct Superblock {
    /// The root's number.
    pub root: u16,
    /// How many inodes there are.
    pub inodes: u64,
    /// How many blocks there are, those of the blobs behind the image among them.
    pub blocks: u32,
    /// Where inode 0 would be, in blocks.
    pub metadata: u32,
    /// What tells this image from others.
    pub uuid: [u8; 16],
}

impl Superblock {
    /// The first block.
    pub fn encode(&self) -> Box<[u8; BLOCK]> {
        let mut block = Box::new([0; BLOCK]);
        let mut put = |at: usize, bytes: &[u8]| {
            block[SUPERBLOCK_OFFSET + at..][..bytes.len()].copy_from_slice(bytes);
        };
        put(0, &MAGIC.to_le_bytes());
        put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        put(12, &[BLOCK.ilog2() as u8]);
        put(14, &self.root.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(40, &self.metadata.to_le_bytes());
        put(48, &self.uuid);
        put(80, &INCOMPAT_CHUNKED_FILE.to_le_bytes());
        let checksum = crc32c(&block[SUPERBLOCK_OFFSET..]);
        block[SUPERBLOCK_OFFSET + 4..][..4].copy_from_slice(&checksum.to_le_bytes());
        block
    }
}

/// One file, without its name.
#[derive(Debug)]
pub struct Inode {
    /// Where its data is.
    pub layout: Layout,
    /// What [`xattrs`](super::xattrs) says of those behind it.
    pub xattr_count: u16,
    /// Kind and rights, as in stat(2).
    pub mode: u16,
    /// Of its data, in bytes.
    pub size: u64,
    /// The first block, the form of the map of chunks, or the device.
    pub place: u32,
    /// A number for programs whose inode numbers have 32 bits.
    pub number: u32,
    /// The owner.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// Of the last change.
    pub mtime: Time,
    /// How many names it has.
    pub links: u32,
}

impl Inode {
    /// As it is in the image.
    pub fn encode(&self) -> [u8; INODE] {
        let mut bytes = [0; INODE];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &(EXTENDED | (self.layout as u16) << 1).to_le_bytes());
        put(2, &self.xattr_count.to_le_bytes());
        put(4, &self.mode.to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &self.place.to_le_bytes());
        put(20, &self.number.to_le_bytes());
        put(24, &self.uid.to_le_bytes());
        put(28, &self.gid.to_le_bytes());
        put(32, &self.mtime.seconds.to_le_bytes());
        put(40, &self.mtime.nanoseconds.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        bytes
    }
}

/// CRC-32C without the last inversion, as the superblock's checksum is.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (POLYNOMIAL * (crc & 1))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32c() {
        // The check value of CRC-32C, without its last step.
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }
}
