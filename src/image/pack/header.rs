//! Members of an archive as they are written: what a header does not hold stands in records in front of it (pax in
//! POSIX.1-2008).

use crate::blob::Stretch;
use std::io::{self, Write};

/// An archive's unit.
const BLOCK: usize = 512;
/// The largest number of a size in a header: eleven octal digits.
const MAX_SIZE: u64 = (1 << 33) - 1;

/// What a member is; owner, group and time are 0.
#[derive(Debug)]
pub struct Head<'a> {
    /// As in the archive.
    pub path: &'a [u8],
    /// By the letter of its kind.
    pub kind: u8,
    /// The lower 12 bits.
    pub mode: u32,
    /// What follows, in bytes.
    pub data: u64,
    /// What it leads to.
    pub target: &'a [u8],
    /// Of a device.
    pub device: (u32, u32),
    /// With whole names.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// The size of a file with holes, and what is data in it.
    pub sparse: Option<(u64, &'a [Stretch])>,
}

/// Writes a header, and its records in front.
pub fn write(head: &Head<'_>, out: &mut impl Write) -> io::Result<()> {
    let mut records = Vec::new();
    if head.path.len() > 100 {
        record(&mut records, b"path", head.path);
    }
    if head.target.len() > 100 {
        record(&mut records, b"linkpath", head.target);
    }
    if head.data > MAX_SIZE {
        record(&mut records, b"size", head.data.to_string().as_bytes());
    }
    for (name, value) in head.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    if let Some((size, stretches)) = head.sparse {
        record(
            &mut records,
            b"GNU.sparse.size",
            size.to_string().as_bytes(),
        );
        let numbers = stretches.iter().flat_map(|it| [it.offset, it.length]);
        let numbers: Vec<_> = numbers.map(|number| number.to_string()).collect();
        record(
            &mut records,
            b"GNU.sparse.map",
            numbers.join(",").as_bytes(),
        );
    }
    if !records.is_empty() {
        let length = records.len() as u64;
        out.write_all(&block(b'x', b"pax", 0o644, length, b"", (0, 0)))?;
        out.write_all(&records)?;
        pad(length, out)?;
    }
    let size = head.data.min(MAX_SIZE);
    out.write_all(&block(
        head.kind,
        head.path,
        head.mode,
        size,
        head.target,
        head.device,
    ))
}

/// Fills a block up.
pub fn pad(length: u64, out: &mut impl Write) -> io::Result<()> {
    let over = (length % BLOCK as u64) as usize;
    match over {
        0 => Ok(()),
        _ => out.write_all(&[0; BLOCK][over..]),
    }
}

/// The end of an archive.
pub fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

/// A record's length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(length.to_string().bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        records.extend(part);
    }
}

fn block(
    kind: u8,
    path: &[u8],
    mode: u32,
    size: u64,
    target: &[u8],
    (major, minor): (u32, u32),
) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &path[..path.len().min(100)]);
    put(100, format!("{mode:07o}").as_bytes());
    for (at, number) in [(108, 0), (116, 0), (329, major), (337, minor)] {
        put(at, format!("{number:07o}").as_bytes());
    }
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &target[..target.len().min(100)]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
