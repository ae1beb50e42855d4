//! The form of the store's files: blocks, which are part of disks, then two texts, then a seal with the lengths and
//! checksums of all that. A file has its name only when it is whole, and is not changed any more.

use super::Error;
use crate::Digest;
use crate::blob::Sink;
use crate::tree::BLOCK;
use kvmlet_sys::byte_lock;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::lock;
use kvmlet_sys::temporary::Temporary;
use rustix::fs::{fstat, fsync};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What a file is; the number is that of the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The content of files, what a layer changes, and the rest of its archive.
    Layer,
    /// Merged metadata, a configuration, and the layers that it was merged of.
    Image,
}

impl Kind {
    fn magic(self) -> &'static [u8; 16] {
        match self {
            Self::Layer => b"kvmlet layer  1\n",
            Self::Image => b"kvmlet image  1\n",
        }
    }
}

/// The end of a file: what it is, its name, a length that its kind has, then of its blocks and its two texts lengths and
/// checksums; at last the checksum of all that.
const SEAL: usize = 16 + 32 + 8 + 3 * (8 + 4) + 4;
/// The longest text that is read into memory, a gigabyte.
const MAX_TEXT: u64 = 1 << 30;

/// What a seal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// What the file is called.
    pub digest: Digest,
    /// Of a layer's archive, in bytes.
    pub length: u64,
    /// Of blocks and texts: length in bytes, and CRC-32.
    pub parts: [(u64, u32); 3],
}

impl Seal {
    /// The blocks by length and checksum, by which images know their layers.
    pub fn data(&self) -> (u64, u32) {
        self.parts[0]
    }

    fn to_bytes(self, kind: Kind) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEAL);
        bytes.extend(kind.magic());
        bytes.extend(self.digest.0);
        bytes.extend(self.length.to_le_bytes());
        for (length, checksum) in self.parts {
            bytes.extend(length.to_le_bytes());
            bytes.extend(checksum.to_le_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Why bytes are no seal of a file of this length, in a line.
    fn from_bytes(bytes: &[u8; SEAL], kind: Kind, file: u64) -> Result<Self, &'static str> {
        let (text, checksum) = bytes.split_at(SEAL - 4);
        let Some(rest) = text.strip_prefix(kind.magic()) else {
            return Err("a part of it is missing, or another version of kvmlet has written it");
        };
        if checksum != crc32fast::hash(text).to_le_bytes() {
            return Err("the checksum of its seal is wrong");
        }
        let mut rest = Fields(rest);
        let mut digest = [0; 32];
        digest.copy_from_slice(rest.take(32));
        let length = rest.number(8);
        let parts = [(); 3].map(|()| (rest.number(8), rest.number(4) as u32));
        let mut lengths = parts.iter().map(|part| part.0);
        let all = lengths.try_fold(SEAL as u64, u64::checked_add);
        if all != Some(file) || parts[0].0 % BLOCK != 0 {
            return Err("it has another length than its seal says");
        }
        Ok(Self {
            digest: Digest(digest),
            length,
            parts,
        })
    }
}

/// A seal's fields, of which there are as many as are taken.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (field, rest) = self.0.split_at(length);
        self.0 = rest;
        field
    }

    /// With its lowest byte first.
    fn number(&mut self, length: usize) -> u64 {
        let bytes = self.take(length).iter().rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// What is written, with its length and checksum.
#[derive(Debug)]
pub struct Summed<W> {
    out: W,
    length: u64,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.checksum.update(&bytes[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A file that is being written: its blocks first.
pub type Blocks = Summed<BufWriter<File>>;

/// What is buffered.
const PIECE: usize = 256 << 10;
/// The fewest zeros that are worth a hole.
const HOLE: u64 = 64 << 10;

/// Many zeros are a hole of the file: they count in length and checksum, and take no place. The seal is behind it.
impl Sink for Blocks {
    fn zeros(&mut self, length: u64) -> io::Result<()> {
        const ZEROS: &[u8] = &[0; PIECE];
        let is_hole = length >= HOLE;
        if is_hole {
            let behind = i64::try_from(length).map_err(io::Error::other)?;
            self.out.seek(SeekFrom::Current(behind))?;
        }
        let mut left = length;
        while left > 0 {
            let zeros = &ZEROS[..left.min(PIECE as u64) as usize];
            left -= zeros.len() as u64;
            if is_hole {
                self.checksum.update(zeros);
                self.length += zeros.len() as u64;
            } else {
                self.write_all(zeros)?;
            }
        }
        Ok(())
    }
}

impl Blocks {
    /// Begins one.
    pub fn new(file: File) -> Self {
        Summed {
            out: BufWriter::with_capacity(PIECE, file),
            length: 0,
            checksum: crc32fast::Hasher::new(),
        }
    }

    /// Adds the texts, the second of which may be long, and the seal.
    pub fn seal(
        mut self,
        kind: Kind,
        (digest, length): (Digest, u64),
        first: &[u8],
        second: &mut dyn Read,
    ) -> io::Result<()> {
        let data = self.end_part();
        self.write_all(first)?;
        let first = self.end_part();
        io::copy(second, &mut self)?;
        let parts = [data, first, self.end_part()];
        let seal = Seal {
            digest,
            length,
            parts,
        };
        self.write_all(&seal.to_bytes(kind))?;
        self.flush()
    }

    fn end_part(&mut self) -> (u64, u32) {
        let sum = std::mem::take(&mut self.checksum).finalize();
        (std::mem::take(&mut self.length), sum)
    }
}

/// A file without a name. It goes if it does not get one, also with a process that is killed.
pub struct NewFile<'a> {
    directory: &'a Directory,
    file: Temporary<'a>,
}

impl<'a> NewFile<'a> {
    /// Makes one in a directory of the store.
    pub fn new(directory: &'a Directory) -> Result<Self, Error> {
        let file = Temporary::private(directory).map_err(Error::io(directory.path()))?;
        Ok(Self { directory, file })
    }

    /// To be written.
    pub fn file(&mut self) -> &File {
        self.file.file()
    }

    /// To write its blocks.
    pub fn blocks(&mut self) -> Result<Blocks, Error> {
        let file = self.file.file().try_clone();
        Ok(Blocks::new(file.map_err(Error::io(self.directory.path()))?))
    }

    /// Has it on the disk under its name.
    pub fn publish(mut self, digest: &Digest) -> Result<(), Error> {
        let failed = Error::io(self.directory.path());
        self.file.file().sync_data().map_err(&failed)?;
        self.file
            .publish(Path::new(&digest.hex()))
            .map_err(&failed)?;
        fsync(self.directory).map_err(|error| failed(error.into()))
    }
}

/// A file that is there, locked to be read. While it is open, nobody removes it.
#[derive(Debug)]
pub struct Sealed {
    /// The open file.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
    /// What its seal says.
    pub seal: Seal,
}

/// How a file is found.
#[derive(Debug)]
pub enum Found {
    /// There is none.
    Nothing,
    /// It is whole, as far as its seal tells.
    Whole(Sealed),
    /// It is not, in a line.
    Broken(&'static str),
}

impl Sealed {
    /// Opens a file by its digest.
    pub fn open(directory: &Directory, kind: Kind, digest: &Digest) -> Result<Found, Error> {
        let name = digest.hex();
        let path = directory.path().join(&name);
        let file = match directory.open_existing(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            other => other.map_err(Error::io(&path))?,
        };
        lock_to_read(&file, &path)?;
        let stat = fstat(&file).map_err(|error| Error::io(&path)(error.into()))?;
        if stat.st_nlink == 0 {
            return Ok(Found::Nothing);
        }
        let length = u64::try_from(stat.st_size).unwrap_or_default();
        let mut bytes = [0; SEAL];
        let Some(at) = length.checked_sub(SEAL as u64) else {
            return Ok(Found::Broken("a part of it is missing"));
        };
        let read = file.read_exact_at(&mut bytes, at);
        read.map_err(Error::io(&path))?;
        Ok(match Seal::from_bytes(&bytes, kind, length) {
            Ok(seal) if seal.digest == *digest => Found::Whole(Self { file, path, seal }),
            Ok(_) => Found::Broken("it is another one than its name says"),
            Err(why) => Found::Broken(why),
        })
    }

    /// One of the texts, the first or the second; `None` if it is not as it was written.
    pub fn text(&self, which: usize) -> Result<Option<Vec<u8>>, Error> {
        let (length, checksum) = self.seal.parts[which];
        if length > MAX_TEXT {
            return Ok(None);
        }
        let mut text = vec![0; length as usize];
        let read = self.file.read_exact_at(&mut text, self.start(which));
        read.map_err(Error::io(&self.path))?;
        Ok((crc32fast::hash(&text) == checksum).then_some(text))
    }

    /// One of the parts, as it is: the blocks, or a text.
    pub fn part(&self, which: usize) -> Result<Part, Error> {
        let file = self.file.try_clone().map_err(Error::io(&self.path))?;
        let at = self.start(which);
        let end = at + self.seal.parts[which].0;
        Ok(Part { file, at, end })
    }

    /// Whether a part is as it was written.
    pub fn is_whole(&self, which: usize) -> Result<bool, Error> {
        let mut sum = Summed {
            out: io::sink(),
            length: 0,
            checksum: crc32fast::Hasher::new(),
        };
        let mut part = io::BufReader::with_capacity(256 << 10, self.part(which)?);
        io::copy(&mut part, &mut sum).map_err(Error::io(&self.path))?;
        Ok((sum.length, sum.checksum.finalize()) == self.seal.parts[which])
    }

    fn start(&self, which: usize) -> u64 {
        self.seal.parts[..which].iter().map(|part| part.0).sum()
    }
}

/// Whoever has it alone is about to remove it, or finds that it is not to be.
fn lock_to_read(file: &File, path: &Path) -> Result<(), Error> {
    let attempt = || match byte_lock::try_lock_all(file, true) {
        Ok(false) => None,
        other => Some(other.map(drop)),
    };
    let tell = || log::warn!("waiting for whoever removes `{}`", path.display());
    let locked = lock::wait(lock::PATIENCE, attempt, tell)?;
    let busy = || Err(io::ErrorKind::ResourceBusy.into());
    locked.unwrap_or_else(busy).map_err(Error::io(path))
}

/// A part of a file, to be read from its beginning; others who read the file do not notice.
#[derive(Debug)]
pub struct Part {
    file: File,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = (self.end - self.at).min(bytes.len() as u64) as usize;
        let count = self.file.read_at(&mut bytes[..length], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
