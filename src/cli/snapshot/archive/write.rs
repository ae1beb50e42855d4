//! How an archive is written.

use super::super::elsewhere::Described;
use super::{
    BLOCK, DIGEST, FORMAT, MANIFEST, MOST_PARTS, Manifest, Part, SMALLEST_HOLE, SNAPSHOT, SPARSE,
    map_of,
};
use kvmlet_image::{Compressed, Digesting};
use kvmlet_manager::Moment;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use tar::{EntryType, Header};

const PIECE: usize = 256 << 10;

/// Writes a file, and what is said of it, which fits in a note of the book.
///
/// # Errors
/// When it cannot be read or written.
pub(in super::super) fn pack(
    file: &File,
    saved: Option<Moment>,
    instance: Option<Described>,
    out: impl Write,
) -> io::Result<()> {
    let size = file.metadata()?.len();
    let parts = parts(file, size)?;
    let stored = parts.iter().map(|part| part.length).sum();
    let manifest = Manifest {
        format: FORMAT,
        kvmlet: env!("CARGO_PKG_VERSION").into(),
        size,
        stored,
        saved,
        instance,
    };
    let mut archive = Archive::begin(out, &manifest, &parts)?;
    let mut piece = vec![0; PIECE];
    for part in parts {
        let (mut at, end) = (part.start, part.start + part.length);
        while at < end {
            let piece = &mut piece[..(end - at).min(PIECE as u64) as usize];
            file.read_exact_at(piece, at)?;
            archive.content(piece)?;
            at += piece.len() as u64;
        }
    }
    archive.finish()
}

/// One that says what is not so.
#[cfg(test)]
pub(super) fn lie(manifest: &Manifest, parts: &[Part], content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut archive = Archive::begin(&mut out, manifest, parts).unwrap();
    archive.content(content).unwrap();
    archive.finish().unwrap();
    out
}

struct Archive<W> {
    out: Compressed<W>,
    digest: Digesting,
    /// Of the file's entry: its map, and what follows.
    length: u64,
}

impl<W: Write> Archive<W> {
    /// All in front of the file's content.
    fn begin(out: W, manifest: &Manifest, parts: &[Part]) -> io::Result<Self> {
        let map = map_of(parts);
        let mut archive = Self {
            out: Compressed::new(out),
            digest: Digesting::default(),
            length: map.len() as u64 + manifest.stored,
        };
        let text = serde_json::to_vec_pretty(manifest)?;
        archive.head(MANIFEST, EntryType::Regular, text.len() as u64)?;
        archive.content(&text)?;
        archive.end(text.len() as u64)?;
        let records = records(manifest.size);
        archive.head(
            "PaxHeaders/snapshot",
            EntryType::XHeader,
            records.len() as u64,
        )?;
        archive.out.write_all(records.as_bytes())?;
        archive.end(records.len() as u64)?;
        archive.head(SPARSE, EntryType::Regular, archive.length)?;
        archive.content(&map)?;
        Ok(archive)
    }

    /// All behind it.
    fn finish(mut self) -> io::Result<()> {
        self.end(self.length)?;
        let digest = self.digest.clone().digest().hex() + "\n";
        self.head(DIGEST, EntryType::Regular, digest.len() as u64)?;
        self.out.write_all(digest.as_bytes())?;
        self.end(digest.len() as u64)?;
        self.out.write_all(&[0; 2 * BLOCK as usize])?;
        self.out.finish()?;
        Ok(())
    }

    fn head(&mut self, name: &str, kind: EntryType, length: u64) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_size(length);
        header.set_mode(0o600);
        header.set_mtime(0);
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    /// What others are to notice a change of.
    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.write_all(bytes)?;
        self.out.write_all(bytes)
    }

    /// Fills the last block of something of that length.
    fn end(&mut self, length: u64) -> io::Result<()> {
        let rest = length.next_multiple_of(BLOCK) - length;
        self.out.write_all(&[0; BLOCK as usize][..rest as usize])
    }
}

/// What GNU tar has to know of a sparse file of that length.
pub(super) fn records(size: u64) -> String {
    let records = [
        ("GNU.sparse.major", "1".to_owned()),
        ("GNU.sparse.minor", "0".into()),
        ("GNU.sparse.name", SNAPSHOT.into()),
        ("GNU.sparse.realsize", size.to_string()),
    ];
    let lines = records.iter().map(|(key, value)| record(key, value));
    lines.collect()
}

/// A line of a further header: how long it is, in front of it.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length = length.to_string().len() + rest.len();
    }
    format!("{length}{rest}")
}

/// What of a file of that length is no hole. Those that are small for it count as no holes.
pub(super) fn parts(file: &File, size: u64) -> io::Result<Vec<Part>> {
    let smallest = SMALLEST_HOLE.max(size / MOST_PARTS);
    let mut parts: Vec<Part> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        let end = match seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(Errno::INVAL) => size,
            Err(error) => return Err(error.into()),
        };
        match parts.last_mut() {
            Some(last) if start - (last.start + last.length) < smallest => {
                last.length = end - last.start;
            }
            _ => parts.push(Part {
                start,
                length: end - start,
            }),
        }
        at = end;
    }
    // What is unpacked ends where this does.
    if parts
        .last()
        .is_none_or(|last| last.start + last.length < size)
    {
        parts.push(Part {
            start: size,
            length: 0,
        });
    }
    Ok(parts)
}
