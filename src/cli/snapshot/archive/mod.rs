//! Snapshots as archives, which other hosts take: tar, compressed by zstd, that `tar` unpacks as well.
//!
//! In this order: `manifest.json`, which says how large all is; the snapshot's file, without its holes (GNU tar's format 1.0 for
//! sparse files); and `sha256`, the digest of the content of both. Whoever reads one believes nothing of it.

mod read;
#[cfg(test)]
mod tests;
mod write;

use super::elsewhere::Described;
use kvmlet_manager::Moment;
pub(super) use read::{Limits, unpack};
use serde::{Deserialize, Serialize};
pub(super) use write::pack;

const MANIFEST: &str = "manifest.json";
/// GNU tar calls what it stores of a sparse file so.
const SPARSE: &str = "GNUSparseFile.0/snapshot";
const SNAPSHOT: &str = "snapshot";
const DIGEST: &str = "sha256";
/// Of the format; what knows less refuses more.
const FORMAT: u32 = 1;

/// No manifest is longer: as a note in the book.
pub(super) const MANIFEST_BYTES: u64 = 4 << 20;
/// No file has more parts: smaller holes are filled.
const MOST_PARTS: u64 = 1 << 19;
const SMALLEST_HOLE: u64 = 64 << 10;
const BLOCK: u64 = 512;

/// What is said of the file that follows.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Of this format.
    format: u32,
    /// Which kvmlet has written it.
    pub kvmlet: String,
    /// How long the file is.
    pub size: u64,
    /// How much of that is no hole.
    pub stored: u64,
    /// When the VM was saved, if that is known.
    pub saved: Option<Moment>,
    /// The instance that it was, if it was one.
    pub instance: Option<Described>,
}

/// A part of the file that is no hole.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part {
    start: u64,
    length: u64,
}

/// What parts are, as GNU tar writes it: numbers, a line each, in whole blocks.
fn map_of(parts: &[Part]) -> Vec<u8> {
    let mut text = format!("{}\n", parts.len());
    for part in parts {
        text += &format!("{}\n{}\n", part.start, part.length);
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
    bytes
}
