//! Who starts the program: the supervisor itself, or a process beside it, for one whose service may be started again.
//!
//! To start a VM takes all rights that its user has. A supervisor has none once the service runs, for it hears its guest. So a
//! process that hears nobody else keeps them: it was forked before there was anything to be heard, has nothing open but its end
//! of a socket, and knows one thing: to start this program, with these arguments, anew. What comes with that are the
//! descriptors which the program is to have.

use super::Program;
use kvmlet_sys::process::{self, Fork};
use kvmlet_sys::{descriptors, signals};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg,
    socketpair,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, set_parent_process_death_signal,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus};

/// What a program is given, in the order in which it goes over the socket.
pub(super) struct Given {
    /// Standard input, output and error.
    pub streams: [OwnedFd; 3],
    /// The instance's lock.
    pub lock: OwnedFd,
    /// Where it says that it runs.
    pub ready: OwnedFd,
    /// Where it serves the control socket, if it does.
    pub control: Option<OwnedFd>,
}

/// The most that there are of them.
const MOST: usize = 6;

/// A program that runs, or has ended and is not forgotten.
pub(super) struct Started {
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    end: End,
}

/// Who knows how it has ended.
enum End {
    Child(Child),
    Starter(OwnedFd),
}

/// The process beside a supervisor.
pub(super) struct Starter(OwnedFd);

impl Starter {
    /// Forks it from this process, which has one thread.
    pub fn fork(program: &Program<'_>) -> io::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        match process::fork(0, None)? {
            Fork::Parent(_) => Ok(Self(ours)),
            Fork::Child(lifeline) => {
                // SAFETY: this process never comes back to what owns them.
                unsafe { descriptors::close_all_but(&[theirs.as_fd()]) };
                std::mem::forget((lifeline, ours));
                process::set_up_streams();
                let served = signals::block_all().and_then(|()| serve(&theirs, program));
                process::end(served.is_err().into())
            }
        }
    }

    /// Has the program started: from a snapshot, or anew.
    pub fn start(&self, restores: bool, given: &Given) -> io::Result<Started> {
        let descriptors = given.all();
        say(&self.0, restores.into(), &descriptors)?;
        match hear(&self.0)? {
            (0, mut descriptors) if descriptors.len() == 1 => Ok(Started {
                pidfd: descriptors.remove(0),
                end: End::Starter(self.0.try_clone()?),
            }),
            (error, _) => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Started {
    /// Starts the program as a child of this process: from a snapshot, or anew.
    pub fn by_this(program: &Program<'_>, restores: bool, given: Given) -> io::Result<Self> {
        let child = spawn(program, restores, given)?;
        Ok(Self {
            pidfd: pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?,
            end: End::Child(child),
        })
    }

    /// How it has ended, which is waited for.
    pub fn wait(self) -> io::Result<ExitStatus> {
        match self.end {
            End::Child(mut child) => child.wait(),
            End::Starter(socket) => {
                let mut bytes = [0; 4];
                match recv(&socket, &mut bytes, RecvFlags::empty())?.0 {
                    4 => Ok(ExitStatus::from_raw(i32::from_ne_bytes(bytes))),
                    // Whoever has ended its starter has ended it, too.
                    _ => Ok(ExitStatus::from_raw(libc::SIGKILL)),
                }
            }
        }
    }
}

impl Given {
    fn all(&self) -> Vec<BorrowedFd<'_>> {
        let streams = self.streams.iter();
        let others = [&self.lock, &self.ready].into_iter().chain(&self.control);
        streams.chain(others).map(AsFd::as_fd).collect()
    }

    fn of(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut all = descriptors.into_iter();
        Some(Self {
            streams: [all.next()?, all.next()?, all.next()?],
            lock: all.next()?,
            ready: all.next()?,
            control: all.next(),
        })
    }
}

/// Starts the program whenever it is wanted, and tells how it has ended, as long as anybody is there.
fn serve(socket: &OwnedFd, program: &Program<'_>) -> io::Result<()> {
    loop {
        let (restores, descriptors) = hear(socket)?;
        let started = Given::of(descriptors).ok_or(Errno::BADF.into());
        let started = started.and_then(|given| Started::by_this(program, restores != 0, given));
        match started {
            Ok(started) => {
                say(socket, 0, &[started.pidfd.as_fd()])?;
                let status = started.wait()?.into_raw().to_ne_bytes();
                send(socket, &status, SendFlags::NOSIGNAL)?;
            }
            Err(error) => say(socket, error.raw_os_error().unwrap_or(libc::EIO), &[])?,
        }
    }
}

fn say(socket: &OwnedFd, number: i32, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let bytes = number.to_ne_bytes();
    sendmsg(
        socket,
        &[IoSlice::new(&bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn hear(socket: &OwnedFd) -> io::Result<(i32, Vec<OwnedFd>)> {
    let mut bytes = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let buffers = &mut [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, buffers, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    match received.bytes {
        4 => Ok((i32::from_ne_bytes(bytes), descriptors)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn spawn(program: &Program<'_>, restores: bool, given: Given) -> io::Result<Child> {
    let Given {
        streams: [input, output, error],
        lock,
        ready,
        control,
    } = given;
    let first = program.first.filter(|_| restores);
    let mut command = first.unwrap_or(program.command)();
    let numbered = [
        (program.ready, Some(&ready)),
        (program.control, control.as_ref()),
    ];
    for (argument, descriptor) in numbered {
        if let (Some(argument), Some(descriptor)) = (argument, descriptor) {
            command
                .arg(argument)
                .arg(descriptor.as_raw_fd().to_string());
        }
    }
    // The command owns them; the new process has them by the same numbers.
    let inherited: Vec<OwnedFd> = [lock, ready].into_iter().chain(control).collect();
    let parent = getpid();
    let prepare = move || prepare(parent, &inherited);
    // SAFETY: it makes system calls, and nothing else.
    unsafe { command.pre_exec(prepare) };
    command.stdin(input).stdout(output).stderr(error).spawn()
}

/// What the new process does before it is the program.
fn prepare(parent: Pid, inherited: &[OwnedFd]) -> io::Result<()> {
    // It would go on when its supervisor is killed, and hold the lock.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // Those that this process reads, or does not heed, are for the program to heed.
    signals::block_none()?;
    for fd in inherited {
        fcntl_setfd(fd, FdFlags::empty())?;
    }
    Ok(())
}
