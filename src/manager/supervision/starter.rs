//! Who starts the program: a process that was forked from the supervisor before there was anything to be heard.
//!
//! To start a VM takes all rights that its user has. A supervisor has none once the service runs, for it hears its guest. So a
//! process that hears nobody else keeps them. It has nothing open but its end of a socket, and knows one thing: to start this
//! program, with these arguments, anew. What comes with that are the descriptors which the program is to have. Where a service
//! is not started again this process becomes the program, and there is none that keeps rights.

use super::handing::{EXITED, Given, How, asked, number, of_end, run};
use super::nap::Nap;
use super::{Program, holding};
use crate::passing::{self, hear, say};
use kvmlet_sys::process::{self, Child, Ended, Fork};
use kvmlet_sys::wait::{self, Slot, Until};
use kvmlet_sys::{descriptors, signals, streams};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{
    Pid, Signal, getpid, getppid, pidfd_send_signal, set_parent_process_death_signal,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

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
pub(super) struct Starter {
    socket: OwnedFd,
    /// The next start is the first, and can be in a forked process.
    here: bool,
    /// It itself, until it is the program.
    process: Option<Child>,
    once: bool,
    /// By which it is told, and tells, of what it holds.
    nap: Option<OwnedFd>,
    holds: bool,
}

impl Starter {
    /// Forks it from this process, which has one thread. It starts the program once, and is it then, or again and again.
    pub fn fork(program: &Program<'_>, once: bool) -> io::Result<Self> {
        let (socket, theirs) = passing::pair()?;
        let (nap, their_nap) = passing::pair()?;
        let holds = program.holds.is_some();
        match process::fork(0, None)? {
            Fork::Parent(process) => Ok(Self {
                socket,
                here: program.here.is_some(),
                process: Some(process),
                once,
                nap: holds.then_some(nap),
                holds,
            }),
            Fork::Child(lifeline) => {
                // SAFETY: this process never comes back to what owns them.
                unsafe { descriptors::close_all_but(&[theirs.as_fd(), their_nap.as_fd()]) };
                std::mem::forget((lifeline, socket, nap));
                streams::set_up();
                let served = signals::block_all().and_then(|()| match program.holds {
                    Some(make) => holding::serve(theirs, their_nap, make()),
                    None if once => {
                        drop(their_nap);
                        become_program(theirs, program)
                    }
                    None => serve(&theirs, program),
                });
                process::end(served.is_err().into())
            }
        }
    }

    /// What is told of what it holds, if it does.
    pub fn nap(&mut self) -> Option<Nap> {
        self.nap.take().map(Nap::new)
    }

    /// Has it let go of what it holds, which others may have when this returns.
    pub fn end(self) {
        /// It takes as long as a network's end.
        const PATIENCE: Duration = Duration::from_secs(5);
        drop(self.socket);
        if let Some(process) = self.process.filter(|_| self.holds) {
            let slot = Slot::readable(process.as_fd());
            let _ = wait::one(slot, Until::after(PATIENCE));
        }
    }

    /// How the next start is: from a snapshot, or anew. Only the first is a fork: whoever has brought one down has learnt where
    /// all is in it, and the next one has another place, as an executed program gets one of its own.
    pub fn how(&mut self, restores: bool, resumes: bool) -> How {
        match (restores, std::mem::take(&mut self.here)) {
            (true, _) if resumes => How::Resumed,
            (true, _) => How::Restored,
            (false, true) => How::Here,
            (false, false) => How::Executed,
        }
    }

    /// Is the configuration known to whoever it starts?
    pub fn knows(&self, how: How) -> bool {
        self.holds || how == How::Here
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

/// The command with what it is given, for a process that ends with `parent`.
fn command(program: &Program<'_>, how: How, given: Given, parent: Option<Pid>) -> Command {
    let Given {
        streams: [input, output, error],
        lock,
        ready,
        control,
    } = given;
    let first = program.first;
    let first = first.filter(|_| matches!(how, How::Restored | How::Resumed));
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
