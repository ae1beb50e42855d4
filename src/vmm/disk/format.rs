//! Formats of disk images that are not raw, recognised by magic numbers at fixed places.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much of the beginning is looked at.
const HEAD_BYTES: usize = 128;
/// What a fixed VHD has behind its data; old ones are a byte shorter.
const VHD_FOOTER_BYTES: u64 = 512;
const VHD_COOKIE: &[u8] = b"conectix";

/// A format that keeps a disk in some other way than byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageFormat {
    /// QEMU's first copy-on-write format.
    Qcow,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// QEMU's enhanced disk.
    Qed,
    /// VMware's, sparse or by a descriptor.
    Vmdk,
    /// VirtualBox's.
    Vdi,
    /// Virtual PC's, dynamic or fixed.
    Vhd,
    /// Hyper-V's.
    Vhdx,
    /// Parallels'.
    Parallels,
    /// Compressed by gzip.
    Gzip,
    /// Compressed by xz.
    Xz,
    /// Compressed by zstd.
    Zstd,
    /// Compressed by bzip2.
    Bzip2,
    /// Compressed by lz4.
    Lz4,
}

impl ImageFormat {
    /// What a disk is by its beginning, if it is none of the raw ones. Nothing in it is followed: no size and
    /// no offset that it names.
    ///
    /// # Errors
    /// What the kernel says when it cannot be read.
    pub(super) fn at_start(file: &File) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD_BYTES];
        file.read_at(&mut head, 0)?;
        Ok(Self::of_head(&head))
    }

    /// What a disk of `bytes`, at least a sector, is by its end.
    ///
    /// # Errors
    /// What the kernel says when it cannot be read.
    pub(super) fn at_end(file: &File, bytes: u64) -> io::Result<Option<Self>> {
        let mut tail = [0; VHD_COOKIE.len() + 1];
        file.read_exact_at(&mut tail, bytes.saturating_sub(VHD_FOOTER_BYTES))?;
        let is_footer = tail.windows(VHD_COOKIE.len()).any(|at| at == VHD_COOKIE);
        Ok(is_footer.then_some(Self::Vhd))
    }

    fn of_head(head: &[u8; HEAD_BYTES]) -> Option<Self> {
        Some(match head {
            [b'Q', b'F', b'I', 0xfb, 0, 0, 0, 1, ..] => Self::Qcow,
            [b'Q', b'F', b'I', 0xfb, ..] => Self::Qcow2,
            [b'Q', b'E', b'D', 0, ..] => Self::Qed,
            [b'K', b'D', b'M', b'V', ..] | [b'C', b'O', b'W', b'D', ..] => Self::Vmdk,
            [0x1f, 0x8b, 8, 0..0x20, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', ..] => Self::Bzip2,
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            _ if head.starts_with(b"# Disk DescriptorFile") => Self::Vmdk,
            _ if head.starts_with(b"vhdxfile") => Self::Vhdx,
            _ if head.starts_with(VHD_COOKIE) => Self::Vhd,
            _ if head.starts_with(b"WithoutFreeSpace") => Self::Parallels,
            _ if head.starts_with(b"WithouFreSpacExt") => Self::Parallels,
            _ if head[0x40..].starts_with(&[0x7f, 0x10, 0xda, 0xbe]) => Self::Vdi,
            _ => return None,
        })
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qcow => "a qcow image",
            Self::Qcow2 => "a qcow2 image",
            Self::Qed => "a QED image",
            Self::Vmdk => "a VMDK image",
            Self::Vdi => "a VDI image",
            Self::Vhd => "a VHD image",
            Self::Vhdx => "a VHDX image",
            Self::Parallels => "a Parallels image",
            Self::Gzip => "compressed by gzip",
            Self::Xz => "compressed by xz",
            Self::Zstd => "compressed by zstd",
            Self::Bzip2 => "compressed by bzip2",
            Self::Lz4 => "compressed by lz4",
        }
    }

    /// The command that makes a raw image of it.
    pub(super) fn way_out(self) -> &'static str {
        macro_rules! way_out {
            ($command:literal) => {
                concat!(
                    "make a raw image of it: `",
                    $command,
                    "`; `format=raw` takes it as it is"
                )
            };
        }
        match self {
            Self::Qcow => way_out!("qemu-img convert -f qcow -O raw IMAGE RAW"),
            Self::Qcow2 => way_out!("qemu-img convert -f qcow2 -O raw IMAGE RAW"),
            Self::Qed => way_out!("qemu-img convert -f qed -O raw IMAGE RAW"),
            Self::Vmdk => way_out!("qemu-img convert -f vmdk -O raw IMAGE RAW"),
            Self::Vdi => way_out!("qemu-img convert -f vdi -O raw IMAGE RAW"),
            Self::Vhd => way_out!("qemu-img convert -f vpc -O raw IMAGE RAW"),
            Self::Vhdx => way_out!("qemu-img convert -f vhdx -O raw IMAGE RAW"),
            Self::Parallels => way_out!("qemu-img convert -f parallels -O raw IMAGE RAW"),
            Self::Gzip => way_out!("gzip -dc IMAGE >RAW"),
            Self::Xz => way_out!("xz -dc IMAGE >RAW"),
            Self::Zstd => way_out!("zstd -d IMAGE -o RAW"),
            Self::Bzip2 => way_out!("bzip2 -dc IMAGE >RAW"),
            Self::Lz4 => way_out!("lz4 -dc IMAGE >RAW"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(content: &[u8]) -> Option<ImageFormat> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        let found = ImageFormat::at_start(&file).unwrap();
        found.or_else(|| ImageFormat::at_end(&file, content.len() as u64).unwrap())
    }

    fn with(offset: usize, magic: &[u8]) -> Option<ImageFormat> {
        let mut content = vec![0; 4096];
        content[offset..offset + magic.len()].copy_from_slice(magic);
        of(&content)
    }

    #[test]
    fn each_format_is_known_by_its_magic() {
        for (offset, magic, expected) in [
            (0, &b"QFI\xfb\0\0\0\x01"[..], ImageFormat::Qcow),
            (0, b"QFI\xfb\0\0\0\x03", ImageFormat::Qcow2),
            (0, b"QED\0", ImageFormat::Qed),
            (0, b"KDMV", ImageFormat::Vmdk),
            (0, b"# Disk DescriptorFile\n", ImageFormat::Vmdk),
            (0x40, b"\x7f\x10\xda\xbe", ImageFormat::Vdi),
            (0, b"conectix", ImageFormat::Vhd),
            (4096 - 512, b"conectix", ImageFormat::Vhd),
            (4096 - 511, b"conectix", ImageFormat::Vhd),
            (0, b"vhdxfile", ImageFormat::Vhdx),
            (0, b"WithoutFreeSpace", ImageFormat::Parallels),
            (0, b"WithouFreSpacExt", ImageFormat::Parallels),
            (0, b"\x1f\x8b\x08\x08", ImageFormat::Gzip),
            (0, b"\xfd7zXZ\0", ImageFormat::Xz),
            (0, b"\x28\xb5\x2f\xfd", ImageFormat::Zstd),
            (0, b"BZh91AY&SY", ImageFormat::Bzip2),
            (0, b"\x04\x22\x4d\x18", ImageFormat::Lz4),
        ] {
            assert_eq!(with(offset, magic), Some(expected), "{expected:?}");
            assert!(expected.way_out().contains("format=raw"));
        }
    }

    #[test]
    fn what_a_raw_disk_begins_with_is_let_through() {
        for (offset, magic) in [
            (0, &b""[..]),
            (0, b"LUKS\xba\xbe"),
            (0, b"\xeb\x63\x90"),
            (510, b"\x55\xaa"),
            (512, b"EFI PART"),
            (1024, b"\xe2\xe1\xf5\xe0"),
            (1080, b"\x53\xef"),
            (1, b"QFI\xfb"),
            (1024, b"conectix"),
        ] {
            assert_eq!(with(offset, magic), None, "{offset}: {magic:?}");
        }
        assert_eq!(of(&[0; 512]), None, "a single sector");
    }

    proptest! {
        #[test]
        fn any_content_has_an_answer(content in prop::collection::vec(any::<u8>(), 512..2048)) {
            of(&content);
        }
    }
}
