//! From records to a tree of files.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use kvmlet_contract::archive::{MAX_DEPTH, Modified, Owner, Record};
use kvmlet_contract::channel::{HEADER, MAX_PAYLOAD};
use linux_raw_sys::general::{O_CREAT, O_EXCL, S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT};

use super::{c_str, last, parent};
use crate::sys::{self, Errno, File};

/// What a new item may be used by before it has its owner: nobody else.
const PRIVATE_DIRECTORY: u32 = 0o700;
/// One that is only on the way to what is copied has no other.
const USUAL_DIRECTORY: u32 = 0o755;
const PRIVATE_FILE: u32 = 0o600;

struct Unpacker<'a> {
    /// Where the item goes.
    directory: File,
    /// How it is called there, if not as it was.
    new_name: Option<&'a [u8]>,
    /// The item is a directory, what is in which goes into the one of the path.
    fills: bool,
    /// Items that have begun, each in the one before it.
    open: Vec<Item>,
    /// Where that is, for those who are told of a failure.
    path: Vec<u8>,
    complete: bool,
}

struct Item {
    file: File,
    is_directory: bool,
    /// It is a directory that something is put into, and stays as it is itself.
    filled: bool,
    /// Of a file.
    size: u64,
    /// How long the path is without it.
    path: usize,
}

/// Puts what comes from standard input to `path`: into the directory there or, if there is none, under that name. Nothing
/// outside of it is touched, whatever symbolic links are in it. A path that ends in `/.` takes a directory alone, what is in
/// which goes into that of the path.
pub fn unpack(path: &CStr) -> Result<(), String> {
    // Modes are those that are told.
    let _ = sys::tree::set_umask(0);
    let named = path.to_bytes();
    let failed = |error: Errno| {
        let path = path.to_string_lossy();
        format!("copy to \"{path}\": {error}")
    };
    let fills = named.ends_with(b"/.");
    let named = named.strip_suffix(b"/.").unwrap_or(named);
    let (directory, new_name) = match File::open(path, sys::O_RDONLY | sys::O_DIRECTORY) {
        Ok(directory) => (directory, None),
        Err(Errno::ENOENT) if fills => {
            let mut buffer = [0; 4096];
            let new = c_str(named, &mut buffer).map_err(failed)?;
            (parent(new).map_err(failed)?, Some(last(named).1))
        }
        Err(error) if fills => return Err(failed(error)),
        Err(Errno::ENOENT | Errno::ENOTDIR) if !named.ends_with(b"/") => {
            (parent(path).map_err(failed)?, Some(last(named).1))
        }
        Err(error) => return Err(failed(error)),
    };
    let mut unpacker = Unpacker {
        directory,
        new_name,
        fills,
        // Once, since a tool's memory is not given back before its end.
        open: Vec::with_capacity(MAX_DEPTH + 1),
        path: Vec::with_capacity(64 << 10),
        complete: false,
    };
    let around = if new_name.is_some() {
        last(named).0
    } else {
        named
    };
    let around = around.strip_suffix(b"/").unwrap_or(around);
    unpacker.path.extend_from_slice(around);
    unpacker.take_all()
}

impl Unpacker<'_> {
    fn failed(&self, verb: &str, error: Errno) -> String {
        let path = String::from_utf8_lossy(&self.path);
        format!("{verb} \"{path}\": {error}")
    }

    fn take_all(&mut self) -> Result<(), String> {
        let mut buffer = [0; HEADER + MAX_PAYLOAD];
        let mut length = 0;
        loop {
            let read = match sys::read(0, &mut buffer[length..]) {
                Err(Errno::EINTR) => continue,
                other => other.map_err(|error| format!("read what is copied: {error}"))?,
            };
            if read == 0 {
                return match self.complete && length == 0 {
                    true => Ok(()),
                    false => Err("copy all: it ends before its end".into()),
                };
            }
            length += read;
            let mut done = 0;
            while let Some((record, size)) = Record::decode(&buffer[done..length])
                .map_err(|error| format!("understand what is copied: {error}"))?
            {
                self.take(record)?;
                done += size;
            }
            buffer.copy_within(done..length, 0);
            length -= done;
        }
    }

    fn take(&mut self, record: Record<'_>) -> Result<(), String> {
        if self.complete {
            return Err("copy what comes after the end".into());
        }
        let mut buffer = [0; 256];
        let fills = self.fills && self.open.is_empty();
        match record {
            Record::File { .. } | Record::Symlink { .. } | Record::Node { .. } if fills => {
                Err(self.failed("copy what is no directory into", Errno::ENOTDIR))
            }
            Record::Directory { .. } if fills && self.new_name.is_none() => self.fill(),
            Record::Directory { name } => {
                let name = self.enter(name, &mut buffer)?;
                self.directory(name, PRIVATE_DIRECTORY)
            }
            Record::Enter { name } => {
                let name = self.enter(name, &mut buffer)?;
                self.directory(name, USUAL_DIRECTORY)?;
                if let Some(item) = self.open.last_mut() {
                    item.filled = true;
                }
                Ok(())
            }
            // For others.
            Record::Ahead { .. } => self.innermost().map(drop),
            Record::File { name, size } => {
                let name = self.enter(name, &mut buffer)?;
                self.file(name, size)
            }
            Record::Symlink {
                owner,
                modified,
                name,
                target,
            } => {
                let name = self.enter(name, &mut buffer)?;
                let made = self.symlink(name, target, owner, modified);
                made.map_err(|error| self.failed("make the link", error))?;
                self.forget(name);
                Ok(())
            }
            Record::Node {
                owner,
                modified,
                device,
                name,
            } => {
                let name = self.enter(name, &mut buffer)?;
                let made = self.node(name, device, owner, modified);
                made.map_err(|error| self.failed("make", error))?;
                self.forget(name);
                Ok(())
            }
            Record::Data { offset, bytes } => self.write(offset, bytes),
            Record::Owner(_) | Record::Attribute { .. } if self.innermost()?.filled => Ok(()),
            Record::Leave(_) if self.innermost()?.filled => {
                self.leave();
                Ok(())
            }
            Record::Owner(owner) => {
                let fd = self.innermost()?.file.number();
                let owned = sys::tree::set_owner(fd, owner.uid, owner.gid);
                let set = owned.and_then(|()| sys::tree::set_mode(fd, owner.mode));
                set.map_err(|error| self.failed("set the owner of", error))
            }
            Record::Attribute { name, value } => {
                let name = c_str(name, &mut buffer).map_err(|error| self.failed("name", error))?;
                let set = self.innermost()?.file.set_attribute(name, value);
                set.map_err(|error| {
                    let name = name.to_string_lossy();
                    self.failed(&format!("set {name} of"), error)
                })
            }
            Record::Leave(modified) => {
                let set = self.innermost()?.file.set_modified(None, modified);
                set.map_err(|error| self.failed("set the time of", error))?;
                self.leave();
                Ok(())
            }
            Record::End if self.open.is_empty() => {
                self.complete = true;
                Ok(())
            }
            Record::End => Err("copy all: it ends within a directory".into()),
        }
    }

    /// Where a new item goes.
    fn around(&self) -> &File {
        self.open.last().map_or(&self.directory, |item| &item.file)
    }

    fn innermost(&self) -> Result<&Item, String> {
        self.open
            .last()
            .ok_or_else(|| "copy what belongs to no file".into())
    }

    /// The name of an item that comes, and the path with it.
    fn enter<'b>(&mut self, name: &[u8], buffer: &'b mut [u8]) -> Result<&'b CStr, String> {
        let in_file = self.open.last().is_some_and(|item| !item.is_directory);
        if in_file || self.open.len() > MAX_DEPTH {
            return Err(self.failed(
                "go into",
                if in_file {
                    Errno::ENOTDIR
                } else {
                    Errno::ELOOP
                },
            ));
        }
        let outermost = self.new_name.filter(|_| self.open.is_empty());
        let name = outermost.unwrap_or(name);
        self.path.push(b'/');
        self.path.extend_from_slice(name);
        c_str(name, buffer).map_err(|error| self.failed("name", error))
    }

    fn leave(&mut self) {
        if let Some(item) = self.open.pop() {
            self.path.truncate(item.path);
        }
    }

    /// The path without an item that is complete.
    fn forget(&mut self, name: &CStr) {
        self.path
            .truncate(self.path.len() - name.to_bytes().len() - 1);
    }

    fn begin(&mut self, name: &CStr, file: File, is_directory: bool, size: u64) {
        let path = self.path.len() - name.to_bytes().len() - 1;
        self.open.push(Item {
            file,
            is_directory,
            filled: false,
            size,
            path,
        });
    }

    /// What is in the directory that comes goes into that of the path.
    fn fill(&mut self) -> Result<(), String> {
        let again = self
            .directory
            .open_in(c".", sys::O_RDONLY | sys::O_DIRECTORY, 0);
        let file = again.map_err(|error| self.failed("go into", error))?;
        self.open.push(Item {
            file,
            is_directory: true,
            filled: true,
            size: 0,
            path: self.path.len(),
        });
        Ok(())
    }

    fn directory(&mut self, name: &CStr, mode: u32) -> Result<(), String> {
        let around = self.around();
        match sys::tree::mkdir_in(around.number(), name, mode) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(self.failed("make the directory", error)),
        }
        let open = around.open_in(name, sys::O_RDONLY | sys::O_DIRECTORY, 0);
        let open = open.map_err(|error| self.failed("go into", error))?;
        self.begin(name, open, true, 0);
        Ok(())
    }

    fn file(&mut self, name: &CStr, size: u64) -> Result<(), String> {
        let failed = |error| self.failed("make", error);
        self.make_way(name).map_err(failed)?;
        let flags = sys::O_WRONLY | O_CREAT | O_EXCL;
        let file = self
            .around()
            .open_in(name, flags, PRIVATE_FILE)
            .map_err(failed)?;
        sys::tree::set_size(file.number(), size).map_err(failed)?;
        self.begin(name, file, false, size);
        Ok(())
    }

    /// Removes what is there, but no directory.
    fn make_way(&self, name: &CStr) -> Result<(), Errno> {
        match sys::tree::unlink_in(self.around().number(), name) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn symlink(
        &self,
        name: &CStr,
        target: &[u8],
        owner: Owner,
        modified: Modified,
    ) -> Result<(), Errno> {
        let mut buffer = [0; 4096];
        let target = c_str(target, &mut buffer)?;
        self.make_way(name)?;
        sys::tree::symlink_in(target, self.around().number(), name)?;
        self.own(name, owner, modified)
    }

    fn node(
        &self,
        name: &CStr,
        device: u32,
        owner: Owner,
        modified: Modified,
    ) -> Result<(), Errno> {
        if ![S_IFIFO, S_IFCHR, S_IFBLK].contains(&(owner.mode & S_IFMT)) {
            return Err(Errno::EINVAL);
        }
        self.make_way(name)?;
        sys::tree::mknod_in(self.around().number(), name, owner.mode, device)?;
        self.own(name, owner, modified)
    }

    fn own(&self, name: &CStr, owner: Owner, modified: Modified) -> Result<(), Errno> {
        let around = self.around();
        sys::tree::chown_in(around.number(), name, owner.uid, owner.gid)?;
        around.set_modified(Some(name), modified)
    }

    fn write(&self, mut offset: u64, mut bytes: &[u8]) -> Result<(), String> {
        let item = self.innermost()?;
        if item.is_directory || offset + bytes.len() as u64 > item.size {
            return Err(self.failed("write to", Errno::EFBIG));
        }
        while !bytes.is_empty() {
            match item.file.write_at(bytes, offset) {
                Ok(count) => {
                    offset += count as u64;
                    bytes = &bytes[count..];
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(self.failed("write to", error)),
            }
        }
        Ok(())
    }
}
