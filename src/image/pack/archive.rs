//! A directory as an archive, in which all is root's.

use super::header::{self, Head};
use super::walk::{Error, Found, open, read, stretches, walk, xattrs};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Writes a directory as an archive.
///
/// # Errors
/// When something in it cannot be read, or the archive not be written.
pub fn archive(directory: &Path, out: &mut impl Write) -> Result<(), Error> {
    let mut packing = Packing {
        out,
        links: BTreeMap::new(),
    };
    walk(directory, |found, _| packing.member(found))?;
    Ok(header::end(packing.out)?)
}

struct Packing<'a, W> {
    out: &'a mut W,
    /// The first name of files that have some, by device and inode.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packing<'_, W> {
    fn member(&mut self, found: &Found<'_>) -> Result<(), Error> {
        let Found { path, inside, .. } = *found;
        let (whole, found) = (found, found.metadata);
        let kind = found.file_type();
        let mut head = Head {
            path: inside,
            kind: b'0',
            mode: found.mode() & 0o7777,
            data: 0,
            target: b"",
            device: (0, 0),
            xattrs: &[],
            sparse: None,
        };
        if kind.is_socket() {
            return Ok(());
        }
        if !kind.is_dir() && found.nlink() > 1 {
            let file = (found.dev(), found.ino());
            if let Some(target) = self.links.get(&file) {
                let kind = b'1';
                return Ok(header::write(
                    &Head {
                        kind,
                        target,
                        ..head
                    },
                    self.out,
                )?);
            }
            self.links.insert(file, inside.to_vec());
        }
        let xattrs = xattrs(whole).map_err(Error::read(path))?;
        head.xattrs = &xattrs;
        if kind.is_file() {
            return self.file(path, head, found.size());
        }
        let target;
        if kind.is_dir() {
            head.kind = b'5';
        } else if kind.is_symlink() {
            target = fs::read_link(path)
                .map_err(Error::read(path))?
                .into_os_string()
                .into_vec();
            (head.kind, head.target) = (b'2', &target);
        } else if kind.is_fifo() {
            head.kind = b'6';
        } else {
            head.kind = if kind.is_char_device() { b'3' } else { b'4' };
            let device = found.rdev();
            head.device = (rustix::fs::major(device), rustix::fs::minor(device));
        }
        Ok(header::write(&head, self.out)?)
    }

    fn file(&mut self, path: &Path, head: Head<'_>, size: u64) -> Result<(), Error> {
        let failed = Error::read(path);
        let file = open(path).map_err(&failed)?;
        let stretches = stretches(&file, size).map_err(&failed)?;
        let data = stretches.iter().map(|it| it.length).sum();
        let sparse = (data < size).then_some((size, &stretches[..]));
        header::write(
            &Head {
                data,
                sparse,
                ..head
            },
            self.out,
        )?;
        let mut piece = vec![0; 128 << 10];
        for stretch in &stretches {
            let part = stretch.offset..stretch.offset + stretch.length;
            read((&file, path), part, &mut piece, |bytes| {
                self.out.write_all(bytes)
            })?;
        }
        Ok(header::pad(data, self.out)?)
    }
}
