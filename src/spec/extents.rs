//! A disk that is made of ranges of files.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is wrong with ranges of which a disk is to be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtentsError {
    /// None, or more than there may be.
    #[error("{count} ranges make no disk: those are 1 to {}", Extents::MAX)]
    Count {
        /// How many.
        count: usize,
    },
    /// A beginning or length that is not made of whole blocks, or no length.
    #[error("{bytes} bytes of `{}` from {offset} on are not whole blocks of {}", .path.display(), Extent::BLOCK_BYTES)]
    Blocks {
        /// The file.
        path: PathBuf,
        /// Where the range begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        bytes: u64,
    },
    /// A range, or the disk, that would end where no file can.
    #[error("the range of `{}` from {offset} on ends where no file does", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Where the range begins, in bytes.
        offset: u64,
    },
    /// The guest was to write.
    #[error("a disk that is made of ranges of files can only be read: make it read-only")]
    Written,
}

/// A range of a file, of whole blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Range", into = "Range")]
pub struct Extent {
    path: PathBuf,
    offset: u64,
    bytes: u64,
}

impl Extent {
    /// Beginnings and lengths are multiples of this.
    pub const BLOCK_BYTES: u64 = 4096;

    /// A range of the file of that path: from where on, and how long, in bytes.
    ///
    /// # Errors
    /// When it is not of whole blocks, or ends where no file can.
    pub fn new(path: impl Into<PathBuf>, offset: u64, bytes: u64) -> Result<Self, ExtentsError> {
        let path = path.into();
        if bytes == 0 || !(offset | bytes).is_multiple_of(Self::BLOCK_BYTES) {
            return Err(ExtentsError::Blocks {
                path,
                offset,
                bytes,
            });
        }
        match offset.checked_add(bytes) {
            Some(end) if i64::try_from(end).is_ok() => Ok(Self {
                path,
                offset,
                bytes,
            }),
            _ => Err(ExtentsError::TooLong { path, offset }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the range begins in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How long it is, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The ranges of a disk in their order, one behind the other: 1 to [`Extents::MAX`], together no longer than a file can be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Extent>", into = "Vec<Extent>")]
pub struct Extents(Vec<Extent>);

impl Extents {
    /// The layers of an image are 127 at the most, and each takes one, or some.
    pub const MAX: usize = 1024;

    /// The ranges, of which there is one at least.
    pub fn as_slice(&self) -> &[Extent] {
        &self.0
    }

    /// What all have together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(Extent::bytes).sum()
    }
}

impl TryFrom<Vec<Extent>> for Extents {
    type Error = ExtentsError;

    fn try_from(extents: Vec<Extent>) -> Result<Self, ExtentsError> {
        let count = extents.len();
        if !(1..=Self::MAX).contains(&count) {
            return Err(ExtentsError::Count { count });
        }
        let mut end = 0_u64;
        for Extent {
            path,
            offset,
            bytes,
        } in &extents
        {
            // Neither is more than half of what there is room for.
            end += bytes;
            if i64::try_from(end).is_err() {
                return Err(ExtentsError::TooLong {
                    path: path.clone(),
                    offset: *offset,
                });
            }
        }
        Ok(Self(extents))
    }
}

impl From<Extents> for Vec<Extent> {
    fn from(extents: Extents) -> Self {
        extents.0
    }
}

/// As it stands in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    path: PathBuf,
    #[serde(default)]
    offset: u64,
    bytes: u64,
}

impl TryFrom<Range> for Extent {
    type Error = ExtentsError;

    fn try_from(range: Range) -> Result<Self, ExtentsError> {
        Self::new(range.path, range.offset, range.bytes)
    }
}

impl From<Extent> for Range {
    fn from(extent: Extent) -> Self {
        let Extent {
            path,
            offset,
            bytes,
        } = extent;
        Self {
            path,
            offset,
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_of_whole_blocks_and_end_where_files_can() {
        for (offset, bytes) in [(0, 0), (1, 4096), (4096, 100), (512, 512)] {
            let error = Extent::new("f", offset, bytes).unwrap_err();
            assert!(matches!(error, ExtentsError::Blocks { .. }), "{error}");
        }
        for (offset, bytes) in [(1 << 62, 1 << 62), (4096, u64::MAX - 4095), (1 << 63, 4096)] {
            let error = Extent::new("f", offset, bytes).unwrap_err();
            assert!(matches!(error, ExtentsError::TooLong { .. }), "{error}");
        }
        let extent = Extent::new("f", 8192, 4096).unwrap();
        assert_eq!((extent.offset(), extent.bytes()), (8192, 4096));
    }

    #[test]
    fn a_disk_is_made_of_some_and_ends_where_files_can() {
        let extent = |bytes| Extent::new("f", 0, bytes).unwrap();
        let made = |extents: Vec<Extent>| Extents::try_from(extents);
        assert_eq!(made(vec![]), Err(ExtentsError::Count { count: 0 }));
        let count = Extents::MAX + 1;
        assert_eq!(
            made(vec![extent(4096); count]),
            Err(ExtentsError::Count { count })
        );
        let large = extent(1 << 62);
        assert!(made(vec![large.clone(), extent(4096)]).is_ok());
        let error = made(vec![large.clone(), large]).unwrap_err();
        assert!(matches!(error, ExtentsError::TooLong { .. }), "{error}");
        let most = made(vec![extent(8192); Extents::MAX]).unwrap();
        assert_eq!(most.bytes(), 8192 * Extents::MAX as u64);
    }
}
