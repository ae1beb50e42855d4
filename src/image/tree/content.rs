//! Where a file's content lies.

/// Blobs and images consist of blocks of this many bytes.
pub const BLOCK: u64 = 4096;

/// A file's content: runs of blocks in blobs, with holes between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    size: u64,
    runs: Vec<Run>,
}

/// Blocks of a file that are next to each other in a blob, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first one's place in the file, in blocks.
    pub at: u32,
    /// Which blob they are in.
    pub blob: u16,
    /// The first one's place in the blob, in blocks.
    pub block: u32,
    /// How many there are, at least one.
    pub blocks: u32,
}

impl Run {
    /// The block behind it, in the file.
    pub fn end(&self) -> u64 {
        u64::from(self.at) + u64::from(self.blocks)
    }
}

impl Content {
    /// The longest file, 8 TiB. The largest that images are known to have is `/var/log/lastlog`, whose size is 292 bytes
    /// times the largest UID: up to 1.2 TiB, nearly all of it a hole.
    pub const MAX_SIZE: u64 = 8 << 40;

    /// A file of this many bytes. Returns `None` where it is too long, or the runs are not in order, overlap, are empty
    /// or go past its end.
    pub fn new(size: u64, runs: Vec<Run>) -> Option<Self> {
        let blocks = size.div_ceil(BLOCK);
        let mut from = 0;
        for run in &runs {
            if u64::from(run.at) < from || run.blocks == 0 || run.end() > blocks {
                return None;
            }
            run.block.checked_add(run.blocks)?;
            from = run.end();
        }
        (size <= Self::MAX_SIZE).then_some(Self { size, runs })
    }

    /// The same content, where all of it is in another blob.
    pub fn in_blob(&self, blob: u16) -> Self {
        let runs = self.runs.iter().map(|run| Run { blob, ..*run });
        Self {
            size: self.size,
            runs: runs.collect(),
        }
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// In blocks, the last of which may be used in part; at most 2³¹.
    pub fn blocks(&self) -> u32 {
        u32::try_from(self.size.div_ceil(BLOCK)).unwrap_or(u32::MAX)
    }

    /// In the order of the file.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The one run that all of it is in, where there are no holes and no seams.
    pub fn whole(&self) -> Option<&Run> {
        match &self.runs[..] {
            [run] if run.at == 0 && run.blocks == self.blocks() => Some(run),
            _ => None,
        }
    }
}
