//! What a VM's process writes, on its way to where it goes.
//!
//! A process in the jail may make no file longer than its disks are (RLIMIT_FSIZE), and its standard output is to
//! grow. So where that is a file the supervisor has it, and the VM's process a pipe. Its standard error is one, too, and
//! whoever writes there does not wait: threads of a VM have no system call by which they could ask for room first.

use kvmlet_sys::{process, standard_error};
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, OFlags, Stat, fcntl_getfl, fstat};
use rustix::io::{Errno, fcntl_dupfd_cloexec, ioctl_fionbio, read};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{dup2_stderr, dup2_stdout, stderr, stdout};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a pipe holds (pipe(7)): all that its writer has written before it was stopped comes at once.
const READ_BYTES: usize = 64 << 10;

/// The supervisor's ends: standard output's, if that is a file, and that of standard error, unless both go to one file.
pub(crate) struct Outputs([Option<Relay>; 2]);

/// The other ends, with which the VM's process replaces its own standard outputs.
pub(crate) struct TheirOutputs([Option<OwnedFd>; 2]);

/// From a pipe to where it goes.
struct Relay {
    /// None when nobody writes any more.
    pipe: Option<OwnedFd>,
    sink: Sink,
    buffer: Vec<u8>,
}

enum Sink {
    File { file: File, lost: bool },
    StandardError,
}

impl Outputs {
    /// Pipes for what this process's own goes to.
    pub fn of_vm() -> io::Result<(Self, TheirOutputs)> {
        let [out, err] = [stdout(), stderr()].map(written_file);
        let (relay, their_out) = match out {
            Some(_) => Some(Relay::to_file(stdout())?).unzip(),
            None => (None, None),
        };
        let (second, their_err) = match (&out, &err, &their_out) {
            // In one pipe all stays in its order.
            (Some(out), Some(err), Some(theirs)) if is_same(out, err) => {
                (None, Some(fcntl_dupfd_cloexec(theirs, 0)?))
            }
            _ if process::is_null(stderr()) => (None, None),
            _ => Some(Relay::to_standard_error()?).unzip(),
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
        standard_error::never_waits();
        Ok(())
    }
}

impl Relay {
    fn to_file(stream: BorrowedFd<'_>) -> io::Result<(Self, OwnedFd)> {
        let (pipe, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        ioctl_fionbio(&pipe, true)?;
        let file = fcntl_dupfd_cloexec(stream, 3)?.into();
        Ok((Self::new(pipe, Sink::File { file, lost: false }), theirs))
    }

    fn to_standard_error() -> io::Result<(Self, OwnedFd)> {
        let (pipe, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok((Self::new(pipe, Sink::StandardError), theirs))
    }

    fn new(pipe: OwnedFd, sink: Sink) -> Self {
        Self {
            pipe: Some(pipe),
            sink,
            buffer: Vec::new(),
        }
    }

    /// True if there may be more.
    fn pass_on(&mut self) -> bool {
        let Some(pipe) = &self.pipe else {
            return false;
        };
        // Its pages are touched as far as something has come.
        self.buffer.reserve(READ_BYTES);
        match read(pipe, spare_capacity(&mut self.buffer)) {
            Ok(1..) => {
                self.sink.put(&self.buffer);
                self.buffer.clear();
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

impl Sink {
    /// What cannot be written was read all the same: the guest goes on.
    fn put(&mut self, bytes: &[u8]) {
        match self {
            Sink::StandardError => standard_error::write(bytes),
            Sink::File { file, lost } => {
                if let Err(error) = file.write_all(bytes)
                    && !std::mem::replace(lost, true)
                {
                    log::warn!("console output is lost from here on: {error}");
                }
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
