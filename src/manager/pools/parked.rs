//! A VM that is restored and stands still: it has its memory, its walls and its share of the host, and nobody yet.

use kvmlet_control::{Channel, LONGEST, Order, Received, Report, Request};
use kvmlet_sys::process::{self, Child};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Of the request that the guest runs: whoever takes a VM counts from 1.
const RESUME: Request = Request {
    number: u32::MAX,
    order: Order::Resume,
};

/// One of a pool's.
pub(super) struct Parked {
    channel: Channel,
    input: OwnedFd,
    output: OwnedFd,
    log: OwnedFd,
    pub supervisor: Child,
}

/// What a supervisor has told.
pub(super) enum Heard {
    /// Nothing that counts.
    Nothing,
    /// Its VM is ready, and stands still.
    Ready,
    /// It has ended, and why.
    Ended(String),
}

impl Parked {
    /// Starts one of that file. `machine` is a command of the program that runs VMs, and its first words; `words` what the VM
    /// has on this host.
    pub fn start(mut machine: Command, words: &[OsString], file: &File) -> io::Result<Self> {
        let (channel, theirs) = Channel::pair()?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let ((typed, input), (output, said), (log, told)) = (pipe()?, pipe()?, pipe()?);
        let (theirs, file) = (theirs.as_fd(), file.as_fd());
        machine
            .args(["restore", "--paused", "--channel-fd"])
            .arg(theirs.as_raw_fd().to_string())
            .args(words)
            .arg("--")
            // Whatever has its name now.
            .arg(path(file))
            .stdin(typed)
            .stdout(said)
            .stderr(told)
            // What is sent to the pool's group is not for its VMs.
            .process_group(0);
        let inherit = |flags| {
            let mut both = [theirs, file].into_iter();
            both.try_for_each(|fd| fcntl_setfd(fd, flags))
        };
        // This process has one thread, so nothing else is started meanwhile. (What is done between fork and exec would make a
        // start slower: the process is copied for it.)
        inherit(FdFlags::empty())?;
        let spawned = process::spawn(&mut machine);
        inherit(FdFlags::CLOEXEC)?;
        Ok(Self {
            channel,
            input,
            output,
            log,
            supervisor: spawned?,
        })
    }

    /// What is told next.
    pub fn hear(&self) -> Heard {
        match self.channel.receive(LONGEST) {
            Received::None => Heard::Nothing,
            Received::Last => Heard::Ended("its supervisor was killed".into()),
            Received::One(message) => match Report::decode(&message) {
                Ok(Report::Ready) => Heard::Ready,
                Ok(Report::Ended(outcome)) => Heard::Ended(match outcome.failure {
                    Some(failure) => match failure.help {
                        Some(help) => format!("{} ({help})", failure.message),
                        None => failure.message,
                    },
                    None => format!("it has ended ({:?})", outcome.reason),
                }),
                _ => Heard::Nothing,
            },
        }
    }

    /// Has its guest run. It hears that while its descriptors are on their way.
    pub fn go_on(&self) -> io::Result<()> {
        self.channel.try_send(&RESUME.encode())
    }

    /// All that whoever takes it gets, as in [`kvmlet_control::Taken`].
    pub fn descriptors(&self) -> [BorrowedFd<'_>; kvmlet_control::POOL_DESCRIPTORS] {
        [
            self.channel.as_fd(),
            self.input.as_fd(),
            self.output.as_fd(),
            self.log.as_fd(),
            self.supervisor.as_fd(),
        ]
    }
}

/// Readable when something is told.
impl AsFd for Parked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// By which this process, and one that inherits it, opens the same file anew.
pub(super) fn path(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}
