//! What a VM's process writes, on its way to files.
//!
//! A process in the jail may make no file longer than its disks are (RLIMIT_FSIZE), and its standard output is to
//! grow. So where that is a file the supervisor has it, and the VM's process a pipe.

use rustix::fs::{FileType, OFlags, Stat, fcntl_getfl, fstat};
use rustix::io::{Errno, fcntl_dupfd_cloexec, ioctl_fionbio, read};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{dup2_stderr, dup2_stdout, stderr, stdout};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a pipe holds (pipe(7)): all that its writer has written before it was stopped comes at once.
const READ_BYTES: usize = 64 << 10;

/// The supervisor's ends: standard output's, and that of standard error, unless both go to one file.
pub(super) struct Outputs([Option<Relay>; 2]);

/// The other ends, with which the VM's process replaces its own standard outputs.
pub(super) struct TheirOutputs([Option<OwnedFd>; 2]);

/// From a pipe to a file.
struct Relay {
    /// None when nobody writes any more.
    pipe: Option<OwnedFd>,
    file: File,
    buffer: Vec<u8>,
    lost: bool,
}

impl Outputs {
    /// Pipes for those of this process's standard outputs that are files.
    pub fn of_files() -> io::Result<(Self, TheirOutputs)> {
        let [out, err] = [stdout(), stderr()].map(written_file);
        let one = matches!((&out, &err), (Some(out), Some(err)) if is_same(out, err));
        let pair = |stream: BorrowedFd<'_>, found: &Option<Stat>| match found {
            Some(_) => Relay::new(stream).map(Some),
            None => Ok(None),
        };
        let (relay, their_out) = pair(stdout(), &out)?.unzip();
        let (second, their_err) = match (one, &their_out) {
            // In one pipe all stays in its order.
            (true, Some(theirs)) => (None, Some(fcntl_dupfd_cloexec(theirs, 0)?)),
            _ => pair(stderr(), &err)?.unzip(),
        };
        Ok((Self([relay, second]), TheirOutputs([their_out, their_err])))
    }

    /// What is to be read.
    pub fn fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        self.0.each_ref().map(|relay| {
            let pipe = relay.as_ref()?.pipe.as_ref()?;
            Some(pipe.as_fd())
        })
    }

    /// Writes what has come: of a writer without end not more than its pipe holds.
    pub fn pass_on(&mut self) {
        for relay in self.0.iter_mut().flatten() {
            relay.pass_on();
        }
    }

    /// Writes all that is left when the VM's process has ended.
    pub fn finish(&mut self) {
        for relay in self.0.iter_mut().flatten() {
            while relay.pass_on() {}
        }
    }
}

impl TheirOutputs {
    /// Makes them this process's standard outputs.
    pub fn put_in_place(self) -> io::Result<()> {
        let Self([out, err]) = self;
        if let Some(out) = out {
            dup2_stdout(out)?;
        }
        if let Some(err) = err {
            dup2_stderr(err)?;
        }
        Ok(())
    }
}

impl Relay {
    fn new(stream: BorrowedFd<'_>) -> io::Result<(Self, OwnedFd)> {
        let (pipe, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        ioctl_fionbio(&pipe, true)?;
        let relay = Self {
            pipe: Some(pipe),
            file: fcntl_dupfd_cloexec(stream, 3)?.into(),
            buffer: Vec::new(),
            lost: false,
        };
        Ok((relay, theirs))
    }

    /// True if there may be more.
    fn pass_on(&mut self) -> bool {
        let Some(pipe) = &self.pipe else {
            return false;
        };
        self.buffer.resize(READ_BYTES, 0);
        match read(pipe, &mut self.buffer[..]) {
            Ok(count @ 1..) => {
                let written = self.file.write_all(&self.buffer[..count]);
                // What cannot be written is read all the same: the guest goes on.
                if let Err(error) = written
                    && !std::mem::replace(&mut self.lost, true)
                {
                    log::warn!("console output is lost from here on: {error}");
                }
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            Ok(_) | Err(_) => {
                self.pipe = None;
                false
            }
        }
    }
}

/// What is known of a file that a stream writes to.
fn written_file(stream: BorrowedFd<'_>) -> Option<Stat> {
    let found = fstat(stream).ok()?;
    let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    let access = fcntl_getfl(stream).ok()? & OFlags::RWMODE;
    (is_file && access != OFlags::RDONLY).then_some(found)
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}
