//! Disks that are made of ranges of files.

use super::{DiskFile, Error, Geometry};
use crate::config::{Extent, Extents};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

/// Ranges of files, one behind the other, which are only read. Each file is open once, however many ranges are of it, and
/// locked as other disks are that are only read.
#[derive(Debug)]
pub struct DiskExtents {
    files: Vec<DiskFile>,
    /// In their order.
    pieces: Vec<Piece>,
}

/// A range, and where it lies on the disk.
#[derive(Debug)]
struct Piece {
    /// Where it ends on the disk, which is where the next one begins, in bytes.
    end: u64,
    /// Which of the files it is of.
    file: usize,
    /// Where it begins in that, in bytes.
    offset: u64,
    /// How long it is, in bytes.
    bytes: u64,
}

/// Where a byte of a disk is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The file.
    pub file: &'a DiskFile,
    /// Where in that, in bytes.
    pub offset: u64,
    /// How much of the disk follows there, that byte included; at least one.
    pub bytes: u64,
}

impl DiskExtents {
    /// Opens and locks the files.
    ///
    /// # Errors
    /// Whatever stands in the way, with the path; also a range that its file does not reach.
    pub fn open(extents: &Extents, direct: bool) -> Result<Self, Error> {
        let mut files: Vec<(DiskFile, u64)> = Vec::new();
        let mut known: BTreeMap<&Path, usize> = BTreeMap::new();
        let mut pieces = Vec::new();
        let mut end = 0;
        for extent in extents.as_slice() {
            let file = match known.entry(extent.path()) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    files.push(opened(extent.path(), direct)?);
                    *new.insert(files.len() - 1)
                }
            };
            refuse_beyond(extent, files[file].1)?;
            end += extent.bytes();
            pieces.push(Piece {
                end,
                file,
                offset: extent.offset(),
                bytes: extent.bytes(),
            });
        }
        let files = files.into_iter().map(|(file, _)| file).collect();
        Ok(Self { files, pieces })
    }

    /// Where a byte of the disk is; nowhere behind its end.
    pub fn at(&self, offset: u64) -> Option<Place<'_>> {
        let number = self.pieces.partition_point(|piece| piece.end <= offset);
        let piece = self.pieces.get(number)?;
        let bytes = piece.end - offset;
        Some(Place {
            file: &self.files[piece.file],
            offset: piece.offset + (piece.bytes - bytes),
            bytes,
        })
    }

    /// The file that it begins with.
    pub fn first(&self) -> &DiskFile {
        &self.files[0]
    }

    /// How long it is, in bytes.
    pub fn bytes(&self) -> u64 {
        self.pieces.last().map_or(0, |piece| piece.end)
    }

    /// Block sizes that suit all of its files.
    pub fn geometry(&self) -> Geometry {
        let blocks = |bytes: u32| bytes.min(Extent::BLOCK_BYTES as u32);
        let each = self.files.iter().map(DiskFile::geometry);
        // Larger ones than those that ranges are made of would be of no use.
        let largest = self.first().geometry();
        each.fold(largest, |one, other| Geometry {
            logical_bytes: blocks(one.logical_bytes.max(other.logical_bytes)),
            physical_bytes: blocks(one.physical_bytes.max(other.physical_bytes)),
        })
    }
}

/// A file with its size.
fn opened(path: &Path, direct: bool) -> Result<(DiskFile, u64), Error> {
    let file = DiskFile::open(path, true, direct)?;
    match file.is_device {
        true => Err(Error::ExtentKind { path: path.into() }),
        false => {
            let bytes = file.bytes()?;
            Ok((file, bytes))
        }
    }
}

fn refuse_beyond(extent: &Extent, bytes: u64) -> Result<(), Error> {
    let end = extent.offset() + extent.bytes();
    match end > bytes {
        true => Err(Error::ExtentBeyond {
            path: extent.path().into(),
            end,
            bytes,
        }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::GuestMount;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt;
    use tempfile::NamedTempFile;

    const BLOCK: u64 = Extent::BLOCK_BYTES;

    fn file(blocks: u64) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        file.as_file().set_len(blocks * BLOCK).unwrap();
        file
    }

    fn extent(file: &NamedTempFile, block: u64, blocks: u64) -> Extent {
        Extent::new(file.path(), block * BLOCK, blocks * BLOCK).unwrap()
    }

    fn open(extents: Vec<Extent>) -> Result<DiskExtents, Error> {
        DiskExtents::open(&extents.try_into().unwrap(), false)
    }

    #[test]
    fn a_file_is_opened_once_and_shared_by_readers() {
        let files = [file(4), file(2)];
        let ranges = || {
            vec![
                extent(&files[0], 3, 1),
                extent(&files[1], 0, 2),
                extent(&files[0], 0, 2),
            ]
        };
        let disk = open(ranges()).unwrap();
        assert_eq!((disk.files.len(), disk.bytes()), (2, 5 * BLOCK));
        let place = |offset| {
            disk.at(offset)
                .map(|place| (place.file.path(), place.offset, place.bytes))
        };
        let (first, second) = (files[0].path(), files[1].path());
        assert_eq!(place(0), Some((first, 3 * BLOCK, BLOCK)));
        assert_eq!(place(BLOCK + 512), Some((second, 512, 2 * BLOCK - 512)));
        assert_eq!(place(5 * BLOCK - 1), Some((first, 2 * BLOCK - 1, 1)));
        assert_eq!(place(5 * BLOCK), None);
        assert_eq!(place(u64::MAX), None);
        // Others may read them, too, and nobody may write.
        let another = open(ranges()).unwrap();
        let writer = DiskFile::open(first, false, false).unwrap_err();
        assert!(matches!(writer, Error::Locked { .. }), "{writer}");
        drop((disk, another));
        let writer = DiskFile::open(first, false, false).unwrap();
        let error = open(ranges()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Locked {
                    read_only: true,
                    ..
                }
            ),
            "{error}"
        );
        drop(writer);
    }

    #[test]
    fn what_its_file_does_not_reach_is_refused_by_name() {
        let file = file(2);
        let error = open(vec![extent(&file, 0, 1), extent(&file, 1, 2)]).unwrap_err();
        let name = file.path().display();
        assert_eq!(
            error.to_string(),
            format!("a disk takes bytes of `{name}` up to 12288, and it has 8192")
        );
        assert!(!error.help().to_string().is_empty());
        let gone = Extent::new("/nowhere/a", 0, BLOCK).unwrap();
        assert!(matches!(open(vec![gone]).unwrap_err(), Error::Open { .. }));
        let directory = Extent::new("/", 0, BLOCK).unwrap();
        assert!(matches!(
            open(vec![directory]).unwrap_err(),
            Error::Kind { .. }
        ));
    }

    #[test]
    fn a_root_begins_with_a_file_system() {
        let file = file(3);
        let mount = |ranges| open(ranges).unwrap().refuse_unmountable(GuestMount::Root);
        let error = mount(vec![extent(&file, 0, 3)]).unwrap_err();
        assert!(
            error.to_string().contains("does not hold erofs or ext4"),
            "{error}"
        );
        // An erofs of three blocks, which begins with the second block of the file.
        let mut superblock = [0; 64];
        superblock[..4].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
        (superblock[12], superblock[36]) = (12, 3);
        file.as_file()
            .write_all_at(&superblock, BLOCK + 1024)
            .unwrap();
        mount(vec![extent(&file, 1, 2), extent(&file, 0, 1)]).unwrap();
        let error = mount(vec![extent(&file, 1, 2)]).unwrap_err();
        assert!(error.to_string().contains("is cut off"), "{error}");
    }

    proptest! {
        #[test]
        fn each_byte_is_where_the_ranges_have_it(
            ranges in prop::collection::vec((0_usize..3, 0_u64..8, 1_u64..5), 1..20),
            offsets in prop::collection::vec(any::<prop::sample::Index>(), 20),
        ) {
            let files = [file(12), file(12), file(12)];
            let extents = ranges.iter().map(|(which, block, blocks)| extent(&files[*which], *block, *blocks));
            let disk = open(extents.collect()).unwrap();
            let model: Vec<(usize, u64)> = ranges
                .iter()
                .flat_map(|(which, block, blocks)| (*block..block + blocks).map(|block| (*which, block)))
                .collect();
            prop_assert_eq!(disk.bytes(), model.len() as u64 * BLOCK);
            for offset in offsets {
                let offset = offset.index(disk.bytes() as usize) as u64;
                let place = disk.at(offset).unwrap();
                let (which, block) = model[(offset / BLOCK) as usize];
                prop_assert_eq!(place.file.path(), files[which].path());
                prop_assert_eq!(place.offset, block * BLOCK + offset % BLOCK);
                prop_assert!(place.bytes > 0 && offset + place.bytes <= disk.bytes());
            }
        }
    }
}
