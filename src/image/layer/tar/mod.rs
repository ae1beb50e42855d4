//! Reading tar archives as they come, as leniently as Go's reader, which most layers are made for.
//!
//! The `tar` crate does not suffice: it takes a line end for the end of a record in extended headers, though extended
//! attributes have any bytes; it wants the padding of the last member, which some tools leave out; and it knows only the
//! oldest form of sparse files.

mod error;
mod extended;
mod header;
mod member;
mod number;
mod sparse;

pub use error::{Error, MAX_HEADER};
pub use member::{Kind, Member};

use crate::blob::{Stretch, stretches_fit};
use crate::tree::Time;
use extended::Extended;
use header::{BLOCK, Header};
use sparse::Form;
use std::io::{self, Read};

/// An archive that is being read. As a reader, it is the data of the last member.
#[derive(Debug)]
pub struct Archive<R> {
    source: R,
    /// What has been read of it.
    at: u64,
    /// Data of the member that has not been read.
    left: u64,
    padding: u64,
}

/// What stands in front of a member, for it.
#[derive(Default)]
struct Ahead {
    /// How long all of it is.
    length: u64,
    extended: Extended,
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

impl<R: Read> Archive<R> {
    /// Begins to read.
    pub fn new(source: R) -> Self {
        Self {
            source,
            at: 0,
            left: 0,
            padding: 0,
        }
    }

    /// Whether its first block, and so perhaps the whole, is an archive's. What follows is to be read from elsewhere.
    ///
    /// # Errors
    /// Why it is none.
    pub fn check_begin(first: R) -> Result<(), Error> {
        let mut archive = Self::new(first);
        let wrong = |it: header::Wrong| Error::Header { at: 0, field: it.0 };
        match archive.header()? {
            Some(block) => Header::parse(&block).map(drop).map_err(wrong),
            None => Ok(()),
        }
    }

    /// What it is read from.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// How much has been read: behind a member's header, where its data begins.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// What it is read from, to tell it something.
    pub fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// The next member; `None` at the end, which may be that of what is read.
    ///
    /// # Errors
    /// Why there is none.
    pub fn next_member(&mut self) -> Result<Option<Member>, Error> {
        let mut ahead = Ahead::default();
        loop {
            self.skip()?;
            let at = self.at;
            let Some(block) = self.header()? else {
                return Ok(None);
            };
            let wrong = |field| Error::Header { at, field };
            let header = Header::parse(&block).map_err(|it| wrong(it.0))?;
            let size = u64::try_from(header.size).map_err(|_| wrong("size"))?;
            match header.kind {
                b'x' => {
                    let records = self.whole(size, at, &mut ahead)?;
                    let read = ahead.extended.read(&records);
                    read.map_err(|field| Error::Extended { at: self.at, field })?;
                }
                b'L' => {
                    let path = self.whole(size, at, &mut ahead)?;
                    ahead.path = Some(header::text(&path).into());
                }
                b'K' => {
                    let target = self.whole(size, at, &mut ahead)?;
                    ahead.target = Some(header::text(&target).into());
                }
                // Those for all members, which no builder of images writes for what counts here (a commit's number, in
                // git's); and the name of a volume.
                b'g' | b'V' => self.data(size),
                _ => return self.member(at, &block, header, ahead).map(Some),
            }
        }
    }

    fn member(
        &mut self,
        at: u64,
        block: &[u8; BLOCK],
        header: Header,
        ahead: Ahead,
    ) -> Result<Member, Error> {
        let wrong = |field| Error::Header { at, field };
        let Ahead {
            extended,
            path,
            target,
            ..
        } = ahead;
        let path = path
            .or(extended.sparse_path)
            .or(extended.path)
            .unwrap_or(header.path);
        let target = target.or(extended.target).unwrap_or(header.target);
        let owner = |told: Option<u64>, field, name| {
            let number = told.map_or_else(|| u64::try_from(field), Ok);
            number
                .ok()
                .and_then(|it| u32::try_from(it).ok())
                .ok_or(wrong(name))
        };
        let mtime = Time {
            seconds: header.mtime,
            nanoseconds: 0,
        };
        let size = header.size.unsigned_abs();
        let size = extended.size.unwrap_or(size);
        let kind = match header.kind {
            // Before there were directories among types, they had a `/` at their end.
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => {
                self.data(size);
                self.file(size, at, extended.sparse)?
            }
            b'S' => {
                let stretches = self.old_sparse(at, block)?;
                self.data(size);
                let size = extended.sparse.size.or(sparse::old_size(block));
                self.sparse(size.ok_or(wrong("size"))?, stretches, at)?
            }
            b'1' => Kind::Link(target),
            b'2' => Kind::Symlink(target),
            b'3' => Kind::Character(header.major, header.minor),
            b'4' => Kind::Block(header.major, header.minor),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            kind => return Err(Error::Kind { at, kind }),
        };
        Ok(Member {
            at,
            path,
            kind,
            mode: (header.mode & 0o7777) as u16,
            uid: owner(extended.uid, header.uid, "uid")?,
            gid: owner(extended.gid, header.gid, "gid")?,
            mtime: extended.mtime.unwrap_or(mtime),
            xattrs: extended.xattrs,
        })
    }

    fn file(&mut self, size: u64, at: u64, told: sparse::Told) -> Result<Kind, Error> {
        let wrong = |field| Error::Extended { at, field };
        let length = told.size;
        let stretches = match told.form().map_err(wrong)? {
            Form::None => {
                let stretches = vec![Stretch {
                    offset: 0,
                    length: size,
                }];
                return Ok(Kind::File { size, stretches });
            }
            Form::Map(stretches) => stretches,
            Form::InData => self.map_in_data(at)?,
        };
        self.sparse(length.ok_or(wrong("GNU.sparse.size"))?, stretches, at)
    }

    /// A file with holes, if its map makes sense.
    fn sparse(&self, size: u64, stretches: Vec<Stretch>, at: u64) -> Result<Kind, Error> {
        let lengths = stretches.iter().map(|it| it.length);
        let data = lengths.fold(0, u64::saturating_add);
        if !stretches_fit(&stretches, size) || data != self.left {
            let field = "map of holes";
            return Err(Error::Header { at, field });
        }
        Ok(Kind::File { size, stretches })
    }

    /// A map in the header, and in blocks behind it.
    fn old_sparse(&mut self, at: u64, header: &[u8; BLOCK]) -> Result<Vec<Stretch>, Error> {
        let wrong = |field| Error::Header { at, field };
        let mut stretches = Vec::new();
        let mut more = sparse::old_map(header, true, &mut stretches).map_err(wrong)?;
        let mut blocks = 0;
        while more {
            let mut block = [0; BLOCK];
            if self.fill(&mut block)? < BLOCK {
                return Err(Error::Truncated { at: self.at });
            }
            more = sparse::old_map(&block, false, &mut stretches).map_err(wrong)?;
            // Blocks may be empty.
            blocks += 1;
            if blocks > MAX_HEADER / BLOCK as u64 {
                return Err(wrong("map of holes"));
            }
        }
        Ok(stretches)
    }

    /// A map in front of the data, in whole blocks: lines with numbers, the first of which says how many pairs follow.
    fn map_in_data(&mut self, at: u64) -> Result<Vec<Stretch>, Error> {
        let wrong = || Error::Extended {
            at,
            field: "map of holes",
        };
        let mut numbers: Vec<u64> = Vec::new();
        let mut line = Vec::new();
        let mut wanted = 1;
        let mut block = [0; BLOCK];
        while numbers.len() < wanted {
            if self.left < BLOCK as u64 {
                return Err(wrong());
            }
            if self.fill(&mut block)? < BLOCK {
                return Err(Error::Truncated { at: self.at });
            }
            self.left -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                if numbers.len() < wanted {
                    numbers.push(number::decimal(&line).ok_or_else(wrong)?);
                }
                line.clear();
                let pairs = usize::try_from(numbers[0]).ok();
                let pairs = pairs.filter(|pairs| *pairs <= sparse::MAX_STRETCHES);
                wanted = 1 + 2 * pairs.ok_or_else(wrong)?;
            }
            if line.len() > BLOCK {
                return Err(wrong());
            }
        }
        sparse::stretches(&numbers[1..]).map_err(|_| wrong())
    }

    /// The next header; `None` at the end: two blocks of zeros, one with nothing behind, or nothing.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let at = self.at;
        let mut block = [0; BLOCK];
        match self.fill(&mut block)? {
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(Error::Truncated { at: self.at }),
        }
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.fill(&mut block)? {
            0 => Ok(None),
            BLOCK if block == [0; BLOCK] => Ok(None),
            BLOCK => Err(Error::Header {
                at,
                field: "checksum",
            }),
            _ => Err(Error::Truncated { at: self.at }),
        }
    }

    /// Says how much data follows.
    fn data(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64).saturating_sub(size);
    }

    /// Data that is part of a header. A member may have any number of these, which are bounded together.
    fn whole(&mut self, size: u64, at: u64, ahead: &mut Ahead) -> Result<Vec<u8>, Error> {
        let length = ahead.length.saturating_add(size);
        if length > MAX_HEADER {
            return Err(Error::LongHeader { at, length });
        }
        ahead.length = length;
        self.data(size);
        let mut bytes = vec![0; size as usize];
        if self.fill(&mut bytes)? < bytes.len() {
            return Err(Error::Truncated { at: self.at });
        }
        self.left = 0;
        Ok(bytes)
    }

    /// Goes behind the data of the last member. Padding at the end of an archive may be missing.
    fn skip(&mut self) -> Result<(), Error> {
        let mut piece = [0; 4096];
        while self.left > 0 {
            let length = self.left.min(piece.len() as u64) as usize;
            let read = self.fill(&mut piece[..length])?;
            if read < length {
                return Err(Error::Truncated { at: self.at });
            }
            self.left -= read as u64;
        }
        let padding = std::mem::take(&mut self.padding) as usize;
        self.fill(&mut piece[..padding])?;
        Ok(())
    }

    /// Reads as much as there is; less only at the end.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.source.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => {
                    filled += count;
                    self.at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Read {
                        at: self.at,
                        source,
                    });
                }
            }
        }
        Ok(filled)
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.left.min(bytes.len() as u64) as usize;
        let count = self.source.read(&mut bytes[..length])?;
        self.left -= count as u64;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
