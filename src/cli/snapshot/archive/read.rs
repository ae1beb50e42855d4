//! How an archive is read, by who has no more than it and the file that it becomes.

use super::{BLOCK, DIGEST, FORMAT, MANIFEST, MANIFEST_BYTES, MOST_PARTS, Manifest, Part, SPARSE};
use kvmlet_command::shown::binary;
use kvmlet_image::layer::Decompressed;
use kvmlet_image::{Digest, Digesting};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use tar::{EntryType, Header};

/// Longer than what is written there.
const RECORDS_BYTES: u64 = 64 << 10;
const DIGEST_BYTES: u64 = 65;
/// What may follow: other programs fill the last of larger blocks.
const MOST_ZEROS: u64 = 1 << 20;
const PIECE: usize = 256 << 10;

/// How much a file may be and take.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Limits {
    /// Its length.
    pub size: u64,
    /// What is free where it is written.
    pub free: u64,
}

/// Writes the file that an archive is of, and returns what is said of it.
///
/// # Errors
/// Why that cannot be.
pub(in super::super) fn unpack(
    archive: impl Read,
    file: &File,
    limits: Limits,
) -> Result<Manifest, String> {
    let plain = Decompressed::new(archive).map_err(unread)?;
    let mut entries = Entries {
        plain,
        digest: Digesting::default(),
    };
    let manifest = entries.manifest()?;
    for (bytes, most, what) in [
        (manifest.size, limits.size, "no VM has as much memory"),
        (
            manifest.stored,
            limits.free,
            "no more is free on that file system",
        ),
    ] {
        if bytes > most {
            let (bytes, most) = (binary(bytes), binary(most));
            return Err(format!(
                "its snapshot takes {bytes}, and at {most} that ends: {what}"
            ));
        }
    }
    entries.snapshot(&manifest, file)?;
    entries.seal()?;
    Ok(manifest)
}

fn unread(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut short".into(),
        io::ErrorKind::InvalidData => "it is cut short, or was changed".into(),
        _ => format!("it cannot be read: {error}"),
    }
}

fn foreign(what: &str) -> String {
    format!("it is not what `kvmlet snapshot export` writes: {what}")
}

fn unwritten(error: io::Error) -> String {
    format!("what is in it cannot be written: {error}")
}

struct Entries<R: Read> {
    plain: Decompressed<R>,
    digest: Digesting,
}

impl<R: Read> Entries<R> {
    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        self.plain.read_exact(bytes).map_err(unread)
    }

    /// The same, of what has a digest.
    fn content(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        self.exactly(bytes)?;
        self.digest.write_all(bytes).map_err(unread)
    }

    /// The head of the next entry, which is to be of that name and kind; how long it is.
    fn head(&mut self, name: Option<&str>, kind: EntryType) -> Result<u64, String> {
        let mut header = Header::new_ustar();
        self.exactly(header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        let sum: u32 = (0..).zip(bytes).fold(0, |sum, (place, byte)| {
            // Of itself, the sum has blanks.
            let is_sum = (148..156).contains(&place);
            sum + u32::from(if is_sum { b' ' } else { *byte })
        });
        if header.cksum().ok() != Some(sum) {
            return Err(foreign("it is no tar archive"));
        }
        let is_named = name.is_none_or(|name| *header.path_bytes() == *name.as_bytes());
        if !is_named || header.entry_type() != kind {
            return Err(foreign("it has other files"));
        }
        header
            .entry_size()
            .map_err(|_| foreign("a size is no number"))
    }

    /// Skips the rest of the last block of something of that length.
    fn end(&mut self, length: u64) -> Result<(), String> {
        let mut rest = [0; BLOCK as usize];
        let count = (BLOCK - length % BLOCK) % BLOCK;
        self.exactly(&mut rest[..count as usize])
    }

    fn small(&mut self, length: u64, most: u64) -> Result<Vec<u8>, String> {
        if length > most {
            return Err(foreign("what says what is in it is too long"));
        }
        Ok(vec![0; length as usize])
    }

    fn manifest(&mut self) -> Result<Manifest, String> {
        let length = self.head(Some(MANIFEST), EntryType::Regular)?;
        let mut text = self.small(length, MANIFEST_BYTES)?;
        self.content(&mut text)?;
        self.end(length)?;
        // The rest may be what only a later kvmlet knows.
        #[derive(serde::Deserialize)]
        struct Format {
            format: u32,
        }
        let format: Format = serde_json::from_slice(&text)
            .map_err(|error| foreign(&format!("its {MANIFEST}: {error}")))?;
        if format.format != FORMAT {
            return Err(format!(
                "it is of format {}, and this kvmlet reads format {FORMAT}",
                format.format
            ));
        }
        serde_json::from_slice(&text).map_err(|error| foreign(&format!("its {MANIFEST}: {error}")))
    }

    fn snapshot(&mut self, manifest: &Manifest, file: &File) -> Result<(), String> {
        let length = self.head(None, EntryType::XHeader)?;
        let mut records = self.small(length, RECORDS_BYTES)?;
        self.exactly(&mut records)?;
        self.end(length)?;
        let expected = super::write::records(manifest.size);
        if records != expected.as_bytes() {
            return Err(foreign("its file has other properties"));
        }
        let length = self.head(Some(SPARSE), EntryType::Regular)?;
        let (parts, map_bytes) = self.map(manifest.size)?;
        let stored: u64 = parts.iter().map(|part| part.length).sum();
        if stored != manifest.stored || length != map_bytes + stored {
            return Err(foreign("its sizes do not agree"));
        }
        file.set_len(manifest.size).map_err(unwritten)?;
        let mut piece = vec![0; PIECE];
        for part in parts {
            let (mut at, end) = (part.start, part.start + part.length);
            while at < end {
                let piece = &mut piece[..(end - at).min(PIECE as u64) as usize];
                self.content(piece)?;
                file.write_all_at(piece, at).map_err(unwritten)?;
                at += piece.len() as u64;
            }
        }
        self.end(length)
    }

    /// Parts of a file of that length, one behind the other; and how long that is in the archive.
    fn map(&mut self, size: u64) -> Result<(Vec<Part>, u64), String> {
        let mut read = 0;
        let count = self.number(&mut read)?;
        if count > MOST_PARTS + 1 {
            return Err(foreign("its file has too many parts"));
        }
        let mut parts = Vec::new();
        let mut least = 0;
        for _ in 0..count {
            let part = Part {
                start: self.number(&mut read)?,
                length: self.number(&mut read)?,
            };
            let end = part.start.checked_add(part.length);
            let end = end.filter(|end| *end <= size && part.start >= least);
            least = end.ok_or_else(|| foreign("parts of its file are not where they can be"))?;
            parts.push(part);
        }
        let mut rest = [0; BLOCK as usize];
        let count = (BLOCK - read % BLOCK) % BLOCK;
        self.content(&mut rest[..count as usize])?;
        Ok((parts, read + count))
    }

    /// A number of a map, in a line of its own.
    fn number(&mut self, read: &mut u64) -> Result<u64, String> {
        let mut number = None;
        loop {
            let mut byte = [0];
            self.content(&mut byte)?;
            *read += 1;
            number = match (byte[0], number) {
                (b'\n', Some(number)) => return Ok(number),
                (digit @ b'0'..=b'9', _) => {
                    let more = number.unwrap_or(0u64).checked_mul(10);
                    let more = more.and_then(|more| more.checked_add(u64::from(digit - b'0')));
                    Some(more.ok_or_else(|| foreign("a place is no number"))?)
                }
                _ => return Err(foreign("a place is no number")),
            };
        }
    }

    /// The digest of all content, and the end.
    fn seal(&mut self) -> Result<(), String> {
        let length = self.head(Some(DIGEST), EntryType::Regular)?;
        let mut text = self.small(length, DIGEST_BYTES)?;
        self.exactly(&mut text)?;
        self.end(length)?;
        let told = std::str::from_utf8(&text).ok();
        let told = told.and_then(|text| Digest::from_hex(text.trim_end()));
        if told != Some(self.digest.clone().digest()) {
            return Err("it has changed since it was written: its digest is another".into());
        }
        let mut zeros = Vec::new();
        let rest = self.plain.by_ref().take(MOST_ZEROS + 1);
        { rest }.read_to_end(&mut zeros).map_err(unread)?;
        match zeros.len() as u64 <= MOST_ZEROS && zeros.iter().all(|byte| *byte == 0) {
            true if zeros.len() as u64 >= 2 * BLOCK => Ok(()),
            true => Err("it is cut short".into()),
            false => Err(foreign("there is more behind its end")),
        }
    }
}
