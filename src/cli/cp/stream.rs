//! Archives of tar as a source or a destination: what is at a path of a guest as one on standard output, and one from standard
//! input as files of a guest. What a guest sends goes to nobody but whoever reads the archive; what an archive says of a guest
//! is done below the directory that was named, and nowhere else.

mod records;
mod there;

use kvmlet_control::agent::archive::{MAX_DATA, Modified, Owner, Record};
use kvmlet_control::agent::records::Records;
use kvmlet_control::agent::{Agent, CopyError, Owners};
use records::{Attributes, FileContent, Writer};
use std::fmt;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Component, Path};
use std::time::{SystemTime, UNIX_EPOCH};
use tar::{Archive, Builder, Entry, EntryType};
pub(super) use there::is_directory;

/// What an archive calls the directory whose content was asked for.
const CONTENT: &[u8] = b".";
/// Where GNU tar and others keep extended attributes, in the records of a pax header.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// Why an archive is not copied.
#[derive(Debug)]
pub(super) enum StreamError {
    /// The guest, or the connection to it.
    Copy(CopyError),
    /// The archive.
    Archive(String),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy(error) => error.fmt(f),
            Self::Archive(why) => write!(f, "the archive: {why}"),
        }
    }
}

impl std::error::Error for StreamError {}

impl StreamError {
    fn archive(why: impl ToString) -> Self {
        Self::Archive(why.to_string())
    }
}

/// Writes what is at a path of the guest to `output`, as an archive. Its outermost name is the last one of the path, or `.` if
/// only the content is asked for.
pub(super) fn pack(
    agent: &mut Agent,
    path: &[u8],
    content: bool,
    output: impl Write + Send,
) -> Result<(), StreamError> {
    let (from, mut to) = UnixStream::pair().map_err(StreamError::archive)?;
    std::thread::scope(|scope| {
        let archiving = scope.spawn(move || {
            let mut builder = Builder::new(BufWriter::new(output));
            if let Err(error) = archive(&mut Records::new(from), content, &mut builder) {
                // Dropped it would write an end, and one that is cut off would look whole.
                std::mem::forget(builder);
                return Err(error);
            }
            let mut output = builder.into_inner()?;
            output.flush()
        });
        let packed = agent.pack(path, &mut to, None);
        drop(to);
        let archived = archiving
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Whoever reads no more is why the guest was not heard any more.
        match (archived, packed) {
            (Err(error), _) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            // A guest that has failed has not said all.
            (Err(error), _) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Err(StreamError::archive(error))
            }
            (_, Err(error)) => Err(StreamError::Copy(error)),
            (archived, Ok(())) => archived.map_err(StreamError::archive),
        }
    })
}

/// Makes entries of records.
fn archive(
    records: &mut Records<impl Read>,
    content: bool,
    builder: &mut Builder<impl Write>,
) -> io::Result<()> {
    let mut path: Vec<Vec<u8>> = Vec::new();
    let at = |path: &[Vec<u8>], name: &[u8]| -> Vec<u8> {
        let outermost = path.is_empty() && content;
        let name = if outermost { CONTENT } else { name };
        // Below that directory names begin with their own.
        let around = path.iter().map(Vec::as_slice).filter(|it| *it != CONTENT);
        let names = around.chain([name]);
        names.collect::<Vec<_>>().join(&b'/')
    };
    loop {
        let record = records.take()?;
        match record.get() {
            Record::End => return Ok(()),
            Record::Leave(_) if path.pop().is_some() => {}
            Record::Directory { name } => {
                let whole = at(&path, name);
                let outermost = path.is_empty() && content;
                path.push(if outermost { CONTENT } else { name }.to_vec());
                let mut header = records::ahead(records)?.header(EntryType::Directory);
                let named = [&whole[..], b"/"].concat();
                builder.append_data(&mut header, records::path(&named), io::empty())?;
            }
            Record::File { name, size } => {
                let whole = at(&path, name);
                let mut header = records::ahead(records)?.header(EntryType::Regular);
                header.set_size(size);
                let mut content = FileContent::new(records, size);
                builder.append_data(&mut header, records::path(&whole), &mut content)?;
                content.finish()?;
            }
            Record::Symlink {
                owner,
                modified,
                name,
                target,
            } => {
                let mut header = records::About { owner, modified }.header(EntryType::Symlink);
                let whole = at(&path, name);
                builder.append_link(&mut header, records::path(&whole), records::path(target))?;
            }
            Record::Node {
                owner,
                modified,
                device,
                name,
            } => {
                let about = records::About { owner, modified };
                let mut header = about.node(device).ok_or_else(records::nonsense)?;
                let whole = at(&path, name);
                builder.append_data(&mut header, records::path(&whole), io::empty())?;
            }
            // They come when it is too late for them.
            Record::Owner(_) | Record::Attribute { .. } if !path.is_empty() => {}
            _ => return Err(records::nonsense()),
        }
    }
}

/// Makes files in a directory of the guest of an archive.
pub(super) fn unpack(
    agent: &mut Agent,
    path: &[u8],
    owners: Owners,
    input: impl Read + Send,
) -> Result<(), StreamError> {
    let (from, to) = UnixStream::pair().map_err(StreamError::archive)?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut unpacking = Unpacking {
                records: Writer::new(to),
                open: Vec::new(),
                owners,
            };
            unpacking.all(input)
        });
        let unpacked = agent.unpack(path, &from, None);
        // Whoever still writes is told that nobody reads.
        drop(from);
        match reading.join() {
            Ok(Ok(())) => unpacked.map_err(StreamError::Copy),
            // It has ended before all was read, and says why.
            Ok(Err(failed)) if failed.is_deaf() => unpacked.map_err(StreamError::Copy),
            Ok(Err(failed)) => Err(StreamError::archive(failed.0)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// From entries to records.
struct Unpacking {
    records: Writer,
    /// Directories that have begun, each in the one before it, but for the outermost.
    open: Vec<Open>,
    owners: Owners,
}

struct Open {
    name: Vec<u8>,
    /// What is said of it at its end, if it is in the archive itself.
    about: Option<(records::About, Attributes)>,
}

/// Why an archive is not unpacked.
struct NotUnpacked(io::Error);

impl NotUnpacked {
    fn of(entry: &[u8], why: &str) -> Self {
        let entry = String::from_utf8_lossy(entry);
        Self(io::Error::other(format!(
            "`{}` {why}",
            entry.escape_debug()
        )))
    }

    /// The guest does not listen any more.
    fn is_deaf(&self) -> bool {
        // Reset: what was written before was not read.
        matches!(
            self.0.kind(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
        )
    }
}

impl From<io::Error> for NotUnpacked {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl Unpacking {
    fn all(&mut self, input: impl Read) -> Result<(), NotUnpacked> {
        // What it is called is of no account: what is in it goes into the directory of the path.
        self.records.tell(&Record::Directory { name: b"archive" })?;
        let mut archive = Archive::new(input);
        for entry in archive.entries()? {
            self.entry(&mut entry?)?;
        }
        expect_end(&mut archive.into_inner())?;
        self.leave_to(0)?;
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let (uid, gid, mode) = (0, 0, 0o755);
        self.records
            .tell(&Record::Owner(Owner { uid, gid, mode }))?;
        self.records.tell(&Record::Leave(Modified {
            seconds: since.as_secs().cast_signed(),
            nanoseconds: since.subsec_nanos(),
        }))?;
        self.records.tell(&Record::End)?;
        Ok(self.records.flush()?)
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), NotUnpacked> {
        let path = entry.path_bytes().into_owned();
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let names = names(&path)?;
        let Some((name, around)) = names.split_last() else {
            // The directory of the path itself, which stays as it is.
            return Ok(());
        };
        let about = records::About::of(entry.header(), self.owners)?;
        let attributes = self.attributes(entry)?;
        self.go_to(around)?;
        match kind {
            EntryType::Directory => {
                self.leave_to(around.len())?;
                self.records.tell(&Record::Directory { name })?;
                self.open.push(Open {
                    name: name.clone(),
                    about: Some((about, attributes)),
                });
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let size = entry.size();
                self.records.tell(&Record::File { name, size })?;
                self.content(entry, size)?;
                Ok(self.records.leave(&about, &attributes)?)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                Ok(self.records.tell(&Record::Symlink {
                    owner: about.owner,
                    modified: about.modified,
                    name,
                    target: &target,
                })?)
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                let node = about.as_node(entry.header(), name);
                Ok(self.records.tell(&node?)?)
            }
            EntryType::Link => Err(NotUnpacked::of(
                &path,
                "is a hard link, and those are not copied (GNU tar makes none with --hard-dereference)",
            )),
            _ => Err(NotUnpacked::of(&path, "is of a kind that is not copied")),
        }
    }

    /// What is to be said of an entry's extended attributes: all of them, or a user's own.
    fn attributes(&self, entry: &mut Entry<'_, impl Read>) -> Result<Attributes, NotUnpacked> {
        let Some(extensions) = entry.pax_extensions()? else {
            return Ok(Vec::new());
        };
        let mut attributes = Vec::new();
        for extension in extensions {
            let extension = extension?;
            let Some(name) = extension.key_bytes().strip_prefix(ATTRIBUTE) else {
                continue;
            };
            if self.owners == Owners::Theirs || name.starts_with(b"user.") {
                attributes.push((name.to_vec(), extension.value_bytes().to_vec()));
            }
        }
        Ok(attributes)
    }

    /// Goes into these directories, of which some may have begun.
    fn go_to(&mut self, names: &[Vec<u8>]) -> Result<(), NotUnpacked> {
        let same = self.open.iter().zip(names);
        let same = same.take_while(|(open, name)| open.name == **name).count();
        self.leave_to(same)?;
        for name in &names[same..] {
            self.records.tell(&Record::Enter { name })?;
            self.open.push(Open {
                name: name.clone(),
                about: None,
            });
        }
        Ok(())
    }

    fn leave_to(&mut self, depth: usize) -> Result<(), NotUnpacked> {
        while self.open.len() > depth {
            let Some(Open { about, .. }) = self.open.pop() else {
                break;
            };
            match about {
                Some((about, attributes)) => self.records.leave(&about, &attributes)?,
                None => self.records.tell(&Record::Leave(records::NO_TIME))?,
            }
        }
        Ok(())
    }

    /// Passes the content on, but for pieces of nothing but zeros, which become holes.
    fn content(&mut self, entry: &mut impl Read, size: u64) -> Result<(), NotUnpacked> {
        let mut piece = [0; MAX_DATA];
        let mut offset = 0;
        while offset < size {
            let most = (size - offset).min(MAX_DATA as u64) as usize;
            entry.read_exact(&mut piece[..most])?;
            let bytes = &piece[..most];
            if bytes.iter().any(|byte| *byte != 0) {
                self.records.tell(&Record::Data { offset, bytes })?;
            }
            offset += most as u64;
        }
        Ok(())
    }
}

/// Two blocks of zeros end an archive, of which the first has been read. One that has none was cut off between two entries, and
/// looks whole.
fn expect_end(rest: &mut impl Read) -> Result<(), NotUnpacked> {
    let mut block = [0; 512];
    match rest.read_exact(&mut block) {
        Ok(()) if block == [0; 512] => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
        _ => Err(NotUnpacked(io::Error::other(
            "it was cut off: two blocks of zeros end an archive, and it does not have them",
        ))),
    }
}

/// The names of a path in an archive, which lead down from where it is unpacked.
fn names(path: &[u8]) -> Result<Vec<Vec<u8>>, NotUnpacked> {
    use std::os::unix::ffi::OsStrExt;
    let mut names = Vec::new();
    for component in Path::new(std::ffi::OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => names.push(name.as_bytes().to_vec()),
            // As others do: it is taken for a name in the archive.
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                return Err(NotUnpacked::of(path, "leads out of the archive"));
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
