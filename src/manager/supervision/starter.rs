//! Who starts the program: a process that was forked from the supervisor before there was anything to be heard.
//!
//! To start a VM takes all rights that its user has. A supervisor has none once the service runs, for it hears its guest. So a
//! process that hears nobody else keeps them. It has nothing open but its end of a socket, and knows one thing: to start this
//! program, with these arguments, anew. What comes with that are the descriptors which the program is to have. Where a service
//! is not started again this process becomes the program, and there is none that keeps rights.

use super::ending::FAILED;
use super::{Handed, Here, Program};
use crate::passing::{self, hear, say};
use kvmlet_sys::process::{self, Child, Ended, Fork};
use kvmlet_sys::{descriptors, signals, standard_error};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{
    Pid, Signal, getpid, getppid, pidfd_send_signal, set_parent_process_death_signal,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

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

/// How it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum How {
    /// By a program that is executed.
    Executed,
    /// From a snapshot, by the one for that.
    Restored,
    /// In a process that was forked for it, which knows its configuration.
    Here,
}

/// The process beside a supervisor.
pub(super) struct Starter {
    socket: OwnedFd,
    /// The next start is the first, and can be in a forked process.
    here: bool,
    /// It itself, until it is the program.
    process: Option<Child>,
    once: bool,
}

impl Starter {
    /// Forks it from this process, which has one thread. It starts the program once, and is it then, or again and again.
    pub fn fork(program: &Program<'_>, once: bool) -> io::Result<Self> {
        let (socket, theirs) = passing::pair()?;
        match process::fork(0, None)? {
            Fork::Parent(process) => Ok(Self {
                socket,
                here: program.here.is_some(),
                process: Some(process),
                once,
            }),
            Fork::Child(lifeline) => {
                // SAFETY: this process never comes back to what owns them.
                unsafe { descriptors::close_all_but(&[theirs.as_fd()]) };
                std::mem::forget((lifeline, socket));
                process::set_up_streams();
                let served = signals::block_all().and_then(|()| match once {
                    true => become_program(theirs, program),
                    false => serve(&theirs, program),
                });
                process::end(served.is_err().into())
            }
        }
    }

    /// How the next start is: from a snapshot, or anew. Only the first is a fork: whoever has brought one down has learnt where
    /// all is in it, and the next one has another place, as an executed program gets one of its own.
    pub fn how(&mut self, restores: bool) -> How {
        match (restores, std::mem::take(&mut self.here)) {
            (true, _) => How::Restored,
            (false, true) => How::Here,
            (false, false) => How::Executed,
        }
    }

    /// Has the program started.
    pub fn start(&mut self, how: How, given: &Given) -> io::Result<Started> {
        say(&self.socket, how as i32, &given.all())?;
        let answer = hear(&self.socket)?;
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        match answer.map(|(error, descriptors)| (error, descriptors.into_iter().next())) {
            Some((0, Some(pidfd))) => Ok(Started {
                pidfd,
                end: End::Starter(self.socket.try_clone()?),
            }),
            // Of one that has become the program the socket is closed, and nothing is said.
            None if self.once => {
                let process = self.process.take().ok_or_else(gone)?;
                Ok(Started {
                    pidfd: process.as_fd().try_clone_to_owned()?,
                    end: End::Child(process),
                })
            }
            None | Some((0, None)) => Err(gone()),
            Some((error, _)) => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Started {
    /// Passes a signal on.
    pub fn signal(&self, signal: Signal) {
        // It may have ended.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// How it has ended, which is waited for.
    pub fn wait(self) -> io::Result<Ended> {
        match self.end {
            End::Child(child) => child.wait(),
            End::Starter(socket) => {
                let mut bytes = [0; 2];
                match recv(&socket, &mut bytes, RecvFlags::empty())?.0 {
                    2 if bytes[0] == EXITED => Ok(Ended::Exited(bytes[1])),
                    2 => Ok(Ended::Killed(bytes[1].into())),
                    // Whoever has ended its starter has ended it, too.
                    _ => Ok(Ended::Killed(libc::SIGKILL)),
                }
            }
        }
    }
}

/// What stands before an exit code, and not before the number of a signal.
const EXITED: u8 = 1;

fn of_end(ended: Ended) -> [u8; 2] {
    match ended {
        Ended::Exited(code) => [EXITED, code],
        Ended::Killed(signal) => [0, signal as u8],
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

/// What is asked for: how it is started, and what the program is given. None when nobody is there any more.
fn asked(socket: &OwnedFd) -> io::Result<Option<(How, Given)>> {
    let Some((how, descriptors)) = hear(socket)? else {
        return Ok(None);
    };
    let known = [How::Executed, How::Restored, How::Here];
    let how = known.into_iter().find(|known| *known as i32 == how);
    let given = Given::of(descriptors).ok_or(Errno::BADF)?;
    Ok(Some((how.ok_or(Errno::INVAL)?, given)))
}

/// Starts the program whenever it is wanted, and tells how it has ended, as long as anybody is there.
fn serve(socket: &OwnedFd, program: &Program<'_>) -> io::Result<()> {
    while let Some((how, given)) = asked(socket)? {
        match start(socket, program, how, given) {
            Ok(child) => {
                say(socket, 0, &[child.as_fd()])?;
                send(socket, &of_end(child.wait()?), SendFlags::NOSIGNAL)?;
            }
            Err(error) => say(socket, number(&error), &[])?,
        }
    }
    Ok(())
}

/// Starts it beside this process.
fn start(socket: &OwnedFd, program: &Program<'_>, how: How, given: Given) -> io::Result<Child> {
    let Some(here) = program.here.filter(|_| how == How::Here) else {
        return process::spawn(&mut command(program, how, given, Some(getpid())));
    };
    match process::fork(0, None)? {
        Fork::Parent(child) => Ok(child),
        Fork::Child(lifeline) => {
            std::mem::forget(lifeline);
            // SAFETY: it is the parent's.
            drop(unsafe { OwnedFd::from_raw_fd(socket.as_raw_fd()) });
            run(here(), given)
        }
    }
}

/// Is the program when it is wanted.
fn become_program(socket: OwnedFd, program: &Program<'_>) -> io::Result<()> {
    // While its supervisor has other things to do.
    let here = program.here.map(|prepare| prepare());
    let Some((how, given)) = asked(&socket)? else {
        return Ok(());
    };
    if let Some(here) = here.filter(|_| how == How::Here) {
        drop(socket);
        run(here, given);
    }
    // Which closes the socket if it succeeds.
    let error = command(program, how, given, getppid()).exec();
    say(&socket, number(&error), &[])
}

/// Is the program, with what it was given, to its end.
fn run(here: Here, given: Given) -> ! {
    let Given {
        streams: [input, output, error],
        lock,
        ready,
        control,
    } = given;
    let set_up = || -> io::Result<()> {
        dup2_stdin(&input)?;
        dup2_stdout(&output)?;
        dup2_stderr(&error)?;
        // It stays open as long as this process lives, and what that starts knows that it is not its own.
        fcntl_setfd(&lock, FdFlags::empty())?;
        signals::block_none()
    };
    if set_up().is_err() {
        process::end(FAILED);
    }
    standard_error::is_another();
    drop((input, output, error));
    std::mem::forget(lock);
    process::end(here(Handed { ready, control }))
}

/// The command with what it is given, for a process that ends with `parent`.
fn command(program: &Program<'_>, how: How, given: Given, parent: Option<Pid>) -> Command {
    let Given {
        streams: [input, output, error],
        lock,
        ready,
        control,
    } = given;
    let first = program.first.filter(|_| how == How::Restored);
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
    let prepare = move || prepare(parent, &inherited);
    // SAFETY: it makes system calls, and nothing else.
    unsafe { command.pre_exec(prepare) };
    command.stdin(input).stdout(output).stderr(error);
    command
}

/// What the new process does before it is the program.
fn prepare(parent: Option<Pid>, inherited: &[OwnedFd]) -> io::Result<()> {
    // It would go on when its supervisor is killed, and hold the lock.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // Those that this process reads, or does not heed, are for the program to heed.
    signals::block_none()?;
    for fd in inherited {
        fcntl_setfd(fd, FdFlags::empty())?;
    }
    Ok(())
}

fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
