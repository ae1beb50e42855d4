//! What a disk holds, as far as a guest that is to mount it cares: by magic numbers at fixed places.

use super::partitions::{HEAD_BYTES, Partition, Scheme};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where erofs and ext4 have their superblocks, how much of them is looked at, and what names them
/// (fs/erofs/erofs_fs.h, Documentation/filesystems/ext4/super.rst).
const SUPERBLOCK: usize = 1024;
const SUPERBLOCK_BYTES: usize = 1024;
const EROFS_MAGIC: u32 = 0xe0f5_e1e2;
const EXT_MAGIC: u16 = 0xef53;
/// Features of ext4 that change what its superblock means: blocks are counted by 64 bits; the journal has to be
/// written to the file system before it can be used.
const EXT_64BIT: u32 = 0x80;
const EXT_RECOVER: u32 = 0x4;

/// A file system that a guest's init can mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub kind: Kind,
    /// How much there is of it.
    pub bytes: u128,
    /// Whether it was not unmounted, and has to be written to before it can be read.
    pub needs_recovery: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Erofs,
    /// And what came before it, which the same driver mounts.
    Ext4,
}

impl FileSystem {
    /// The file system that begins at an offset of a disk, if it is one of these.
    pub fn at(file: &File, offset: u64) -> io::Result<Option<Self>> {
        let mut block = [0; SUPERBLOCK_BYTES];
        let Some(offset) = offset.checked_add(SUPERBLOCK as u64) else {
            return Ok(None);
        };
        // No file ends behind that.
        if offset > i64::MAX as u64 - SUPERBLOCK_BYTES as u64 {
            return Ok(None);
        }
        read_up_to(file, &mut block, offset)?;
        Ok(Self::of_superblock(&block))
    }

    fn of_superblock(block: &[u8; SUPERBLOCK_BYTES]) -> Option<Self> {
        let word = |at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        if word(0) == EROFS_MAGIC {
            return Some(Self {
                kind: Kind::Erofs,
                bytes: u128::from(word(36)) << block[12].min(64),
                needs_recovery: false,
            });
        }
        if word(0x38) as u16 != EXT_MAGIC {
            return None;
        }
        let features = word(0x60);
        let high = if features & EXT_64BIT != 0 {
            word(0x150)
        } else {
            0
        };
        let blocks = u64::from(high) << 32 | u64::from(word(4));
        Some(Self {
            kind: Kind::Ext4,
            bytes: u128::from(blocks) << word(0x18).saturating_add(10).min(63),
            needs_recovery: features & EXT_RECOVER != 0,
        })
    }
}

/// What a disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    FileSystem(FileSystem),
    Partitions(Scheme, Vec<Partition>),
    /// Something else, by its name.
    Other(&'static str),
    /// Zeroes, as far as was looked.
    Nothing,
    Unknown,
}

impl Content {
    /// Looks at a disk. No size and no offset that it names is trusted: places that are not there hold nothing.
    ///
    /// # Errors
    /// What the kernel says when it cannot be read.
    pub fn of(file: &File) -> io::Result<Self> {
        // First, since boot code, and so what looks like a partition table, can stand before a file system.
        if let Some(found) = FileSystem::at(file, 0)? {
            return Ok(Self::FileSystem(found));
        }
        let mut head = [0; HEAD_BYTES];
        read_up_to(file, &mut head, 0)?;
        for (offset, magic, name) in OTHERS {
            let mut found = [0; 8];
            read_up_to(file, &mut found[..magic.len()], offset)?;
            if found.starts_with(magic) {
                return Ok(Self::Other(name));
            }
        }
        if let Some((scheme, partitions)) = Scheme::of_head(&head) {
            return Ok(Self::Partitions(scheme, partitions));
        }
        Ok(match head.iter().all(|byte| *byte == 0) {
            true => Self::Nothing,
            false => Self::Unknown,
        })
    }
}

/// What people may have at hand instead, by where it says so.
const OTHERS: [(u64, &[u8], &str); 15] = [
    (0, b"hsqs", "squashfs"),
    (0, b"XFSB", "XFS"),
    (0x1_0040, b"_BHRfS_M", "btrfs"),
    (0x400, b"\x10\x20\xf5\xf2", "F2FS"),
    (0x8001, b"CD001", "an ISO 9660 image"),
    (54, b"FAT12", "FAT"),
    (54, b"FAT16", "FAT"),
    (82, b"FAT32", "FAT"),
    (3, b"NTFS", "NTFS"),
    (4086, b"SWAPSPAC", "swap space"),
    (0, b"LUKS\xba\xbe", "encrypted by LUKS"),
    (536, b"LVM2 001", "a volume of LVM"),
    (257, b"ustar", "a tar archive"),
    (0, b"07070", "a cpio archive"),
    (0, b"\x7fELF", "an ELF program"),
];

/// Reads as much as there is; the rest stays as it was.
pub(super) fn read_up_to(file: &File, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !into.is_empty() {
        match file.read_at(into, offset) {
            Ok(0) => break,
            Ok(bytes) => {
                into = &mut into[bytes..];
                offset += bytes as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(content: &[u8]) -> Content {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        Content::of(&file).unwrap()
    }

    fn with(offset: u64, magic: &[u8]) -> Content {
        let mut content = vec![0; 0x1_1000];
        let offset = offset as usize;
        content[offset..offset + magic.len()].copy_from_slice(magic);
        of(&content)
    }

    #[test]
    fn what_else_there_is_has_a_name() {
        for (offset, magic, name) in OTHERS {
            assert_eq!(with(offset, magic), Content::Other(name));
        }
        assert_eq!(of(&[]), Content::Nothing);
        assert_eq!(of(&[0; 10_000]), Content::Nothing);
        assert_eq!(of(b"hello"), Content::Unknown);
    }

    #[test]
    fn superblocks_tell_how_much_there_is() {
        let mut block = [0; SUPERBLOCK_BYTES];
        block[0x38..0x3a].copy_from_slice(&EXT_MAGIC.to_le_bytes());
        block[0x18] = 2;
        block[4] = 5;
        block[0x150] = 1;
        block[0x60] = EXT_RECOVER as u8;
        let found = FileSystem::of_superblock(&block).unwrap();
        assert_eq!((found.kind, found.bytes), (Kind::Ext4, 5 << 12));
        assert!(found.needs_recovery);
        block[0x60] = EXT_64BIT as u8;
        let found = FileSystem::of_superblock(&block).unwrap();
        assert_eq!(
            (found.bytes, found.needs_recovery),
            ((1 << 44) + (5 << 12), false)
        );
        let mut block = [0; SUPERBLOCK_BYTES];
        block[..4].copy_from_slice(&EROFS_MAGIC.to_le_bytes());
        (block[12], block[36]) = (9, 3);
        let found = FileSystem::of_superblock(&block).unwrap();
        assert_eq!((found.kind, found.bytes), (Kind::Erofs, 3 * 512));
    }

    proptest! {
        #[test]
        fn any_content_has_an_answer(
            start in prop::collection::vec(any::<u8>(), 0..3000),
            magic in prop::sample::select(vec![(510, &b"\x55\xaa"[..]), (512, b"EFI PART"), (1080, b"\x53\xef"), (1024, b"\xe2\xe1\xf5\xe0")]),
            offset in any::<u64>(),
        ) {
            let mut content = start;
            let (at, magic) = magic;
            if content.len() > at + magic.len() {
                content[at..at + magic.len()].copy_from_slice(magic);
            }
            of(&content);
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&content, 0).unwrap();
            prop_assert!(FileSystem::at(&file, offset).is_ok());
        }
    }
}
