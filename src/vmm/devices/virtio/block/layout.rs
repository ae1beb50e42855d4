//! Feature bits and the configuration space (virtio 1.2 §5.2.3 and §5.2.4).

use crate::disk::Geometry;

/// Feature bits (§5.2.3).
pub(super) mod feature {
    pub const SEG_MAX: u64 = 1 << 2;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const CONFIG_WCE: u64 = 1 << 11;
    pub const MQ: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// The unit of all sector numbers in the protocol (§5.2.2).
pub(super) const SECTOR_BYTES: u64 = 512;
/// Offset of the `writeback` field, the only one that a driver may write.
pub(super) const WRITEBACK_OFFSET: u64 = 32;
/// Up to the last field that an offered feature defines.
const CONFIG_BYTES: usize = 60;

/// The most that one discard may name, in sectors: 2 GiB, which no file system takes long to free.
pub(super) const DISCARD_SECTORS: u32 = 1 << 22;
/// The most that one write-zeroes may name, in sectors: 64 MiB, so that the request stays one of many where
/// zeroes must really be written.
pub(super) const ZERO_SECTORS: u32 = 1 << 17;

/// What the configuration space says.
pub(super) struct ConfigSpace {
    pub capacity_sectors: u64,
    pub segments: u32,
    pub geometry: Geometry,
    pub writeback: bool,
    pub queues: u16,
    pub discards: bool,
}

impl ConfigSpace {
    /// The bytes as a driver reads them, little-endian.
    pub fn bytes(&self) -> [u8; CONFIG_BYTES] {
        let mut bytes = [0; CONFIG_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        let Geometry {
            logical_bytes,
            physical_bytes,
        } = self.geometry;
        let ratio = physical_bytes / logical_bytes;
        put(0, &self.capacity_sectors.to_le_bytes());
        // size_max at 8 and the geometry at 16 have no meaning without their features.
        put(12, &self.segments.to_le_bytes());
        put(20, &logical_bytes.to_le_bytes());
        // Topology: blocks of 2^n, the first aligned, the least and the best I/O size in logical blocks.
        put(24, &[ratio.trailing_zeros() as u8, 0]);
        put(26, &(ratio as u16).to_le_bytes());
        put(28, &0u32.to_le_bytes());
        put(WRITEBACK_OFFSET as usize, &[self.writeback.into()]);
        put(34, &self.queues.to_le_bytes());
        if self.discards {
            // One range in a request, which is then one operation of the host.
            let alignment = physical_bytes / SECTOR_BYTES as u32;
            put(36, &DISCARD_SECTORS.to_le_bytes());
            put(40, &1u32.to_le_bytes());
            put(44, &alignment.to_le_bytes());
            put(48, &ZERO_SECTORS.to_le_bytes());
            put(52, &1u32.to_le_bytes());
            put(56, &[1]);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_bindings::virtio_blk as abi;

    #[test]
    fn fields_lie_where_linux_looks_for_them() {
        let space = ConfigSpace {
            capacity_sectors: 0x1122_3344_5566_7788,
            segments: 126,
            geometry: Geometry {
                logical_bytes: 512,
                physical_bytes: 4096,
            },
            writeback: true,
            queues: 3,
            discards: true,
        };
        let mut bytes = space.bytes().to_vec();
        bytes.resize(size_of::<abi::virtio_blk_config>(), 0);
        // SAFETY: the structure is packed plain integers, and the bytes are as many.
        let seen: abi::virtio_blk_config =
            unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) };
        assert_eq!({ seen.capacity }, 0x1122_3344_5566_7788);
        assert_eq!({ seen.seg_max }, 126);
        assert_eq!({ seen.blk_size }, 512);
        assert_eq!(({ seen.physical_block_exp }, { seen.min_io_size }), (3, 8));
        assert_eq!(({ seen.wce }, { seen.num_queues }), (1, 3));
        assert_eq!({ seen.max_discard_sectors }, DISCARD_SECTORS);
        assert_eq!(
            ({ seen.max_discard_seg }, { seen.discard_sector_alignment }),
            (1, 8)
        );
        assert_eq!({ seen.max_write_zeroes_sectors }, ZERO_SECTORS);
        assert_eq!(
            ({ seen.max_write_zeroes_seg }, {
                seen.write_zeroes_may_unmap
            }),
            (1, 1)
        );
    }

    #[test]
    fn feature_bits_are_those_of_linux() {
        for (ours, linux) in [
            (feature::SEG_MAX, abi::VIRTIO_BLK_F_SEG_MAX),
            (feature::RO, abi::VIRTIO_BLK_F_RO),
            (feature::BLK_SIZE, abi::VIRTIO_BLK_F_BLK_SIZE),
            (feature::FLUSH, abi::VIRTIO_BLK_F_FLUSH),
            (feature::TOPOLOGY, abi::VIRTIO_BLK_F_TOPOLOGY),
            (feature::CONFIG_WCE, abi::VIRTIO_BLK_F_CONFIG_WCE),
            (feature::MQ, abi::VIRTIO_BLK_F_MQ),
            (feature::DISCARD, abi::VIRTIO_BLK_F_DISCARD),
            (feature::WRITE_ZEROES, abi::VIRTIO_BLK_F_WRITE_ZEROES),
        ] {
            assert_eq!(ours, 1 << linux);
        }
    }
}
