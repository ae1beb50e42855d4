//! Disks that are made of ranges of files.

use super::*;
use crate::config::{Rate, RateLimit};
use proptest::prelude::*;

const BLOCK: u64 = Extent::BLOCK_BYTES;

/// A rig for each kind of back end.
fn each(extents: &Extents, direct: bool) -> impl Iterator<Item = Rig> {
    [DiskIo::Sync, DiskIo::Auto].into_iter().map(move |io| {
        let mut disk = Disk::read_only(extents.clone());
        (disk.io, disk.direct) = (io, direct);
        let (device, handle) = open(&disk, 0).unwrap();
        Rig {
            driver: FakeDriver::ready(Box::new(device)),
            handle,
            image: None,
        }
    })
}

fn file(number: u8, blocks: u64) -> (NamedTempFile, Vec<u8>) {
    let file = NamedTempFile::new().unwrap();
    let words = 0..(blocks * BLOCK / 4) as u32;
    let content: Vec<u8> = words
        .flat_map(|word| (word * 4 + u32::from(number)).to_le_bytes())
        .collect();
    std::fs::write(file.path(), &content).unwrap();
    (file, content)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn they_read_as_one_behind_the_other(
        ranges in prop::collection::vec((0_usize..3, 0_u64..30, 1_u64..100), 1..12),
        reads in prop::collection::vec((any::<prop::sample::Index>(), 1_u32..3000), 1..12),
        direct in any::<bool>(),
    ) {
        let files: Vec<_> = (0..3).map(|number| file(number, 130)).collect();
        let extents: Vec<Extent> = ranges
            .iter()
            .map(|(which, block, blocks)| Extent::new(files[*which].0.path(), block * BLOCK, blocks * BLOCK).unwrap())
            .collect();
        let model: Vec<u8> = ranges
            .iter()
            .flat_map(|(which, block, blocks)| {
                let (start, end) = (block * BLOCK, (block + blocks) * BLOCK);
                files[*which].1[start as usize..end as usize].iter().copied()
            })
            .collect();
        let sectors = (model.len() / SECTOR) as u64;
        for mut rig in each(&extents.try_into().unwrap(), direct) {
            prop_assert_eq!(rig.handle.bytes(), model.len() as u64);
            for (sector, count) in &reads {
                let sector = sector.index(sectors as usize) as u64;
                let count = (*count).min((sectors - sector) as u32);
                let start = sector as usize * SECTOR;
                prop_assert!(rig.read(sector, count) == model[start..start + count as usize * SECTOR]);
            }
        }
    }
}

#[test]
fn they_are_only_read() {
    for io in [DiskIo::Sync, DiskIo::Auto] {
        let mut rig = Rig::on_extents(|disk| disk.io = io);
        assert_eq!(rig.status(OUT, 8, &[1; 512], 0), IOERR);
        assert_eq!(rig.ranged(DISCARD, 0, 8, 0), IOERR);
        assert_eq!(rig.ranged(WRITE_ZEROES, 0, 8, 1), IOERR);
        assert_eq!(rig.status(FLUSH, 0, &[], 0), OK);
        let (status, _, id) = rig.request(GET_ID, 0, &[], 20);
        assert_eq!((status, &id[..9]), (OK, &b"kvmlet-0\0"[..]));
        // Nothing, right behind the end, is no error, and more is.
        assert_eq!(rig.status(IN, DISK_SECTORS, &[], 0), OK);
        assert_eq!(rig.status(IN, DISK_SECTORS, &[], 512), IOERR);
        assert_eq!(rig.status(IN, DISK_SECTORS - 1, &[], 1024), IOERR);
        assert_eq!(rig.read(0, 2048), pattern());
        let stats = rig.handle.stats();
        assert_eq!(
            (stats.reads, stats.read_bytes, stats.flushes),
            (2, 1 << 20, 1)
        );
        assert_eq!(rig.handle.resize().unwrap(), 1 << 20);
    }
}

#[test]
fn a_file_that_becomes_shorter_is_an_error_of_reads() {
    let [(first, head), (second, tail)] = [file(1, 4), file(2, 8)];
    let extents = vec![
        Extent::new(first.path(), 0, 4 * BLOCK).unwrap(),
        Extent::new(second.path(), 0, 8 * BLOCK).unwrap(),
    ];
    let rigs: Vec<Rig> = each(&extents.try_into().unwrap(), false).collect();
    for mut rig in rigs {
        std::fs::write(second.path(), &tail).unwrap();
        assert_eq!(rig.read(32, 64), tail);
        second.as_file().set_len(BLOCK).unwrap();
        assert_eq!(rig.status(IN, 32, &[], 8 * 4096), IOERR);
        assert_eq!(rig.status(IN, 31, &[], 3 * 4096), IOERR);
        assert_eq!(rig.read(32, 8), tail[..4096]);
        assert_eq!(rig.read(0, 32), head);
        assert_eq!(rig.handle.stats().errors, 2);
    }
}

#[test]
fn a_request_counts_once_for_a_limit() {
    let mut rig = Rig::on_extents(|disk| {
        disk.rate_limit = RateLimit {
            operations: Some(Rate::per_second(1000).unwrap().burst(2)),
            bandwidth: None,
        };
    });
    // 256 ranges each, and not one operation more than was asked for.
    assert_eq!(rig.read(0, 2048), pattern());
    assert_eq!(rig.read(0, 2048), pattern());
    assert_eq!(rig.handle.stats().throttled, 0);
    assert_eq!(rig.handle.stats().reads, 2);
}
