//! The process that will be in the jail, and its tie to whoever attends it.

use super::{Jail, Missing, Wall, check};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Which of the two processes this is, after a [fork](Jail::fork).
#[derive(Debug)]
pub enum Fork {
    /// The one that forked.
    Parent(Child),
    /// The new one.
    Child(Lifeline),
}

/// A process that was forked. Its end is the caller's to wait for.
#[derive(Debug)]
pub struct Child {
    /// Its number, as the parent sees it.
    pub pid: rustix::process::Pid,
    /// Readable when it has ended (pidfd_open(2)).
    pub pidfd: OwnedFd,
    _lifeline: OwnedFd,
}

impl Jail {
    /// Forks a process into a PID namespace of its own, as its first process. One without privileges gets a
    /// user namespace with it.
    ///
    /// Call it while there is one thread: others do not exist in the child, but their locks do.
    ///
    /// As the first process of its namespace the child ignores signals that it neither handles nor blocks.
    ///
    /// # Errors
    /// [`Wall::Pids`] when the host gives no such namespace; or, with `best_effort`, no process.
    pub fn fork(&self, best_effort: bool) -> Result<(Fork, Option<Missing>), Missing> {
        let flags = match self.privileged {
            true => libc::CLONE_NEWPID,
            false => libc::CLONE_NEWPID | libc::CLONE_NEWUSER,
        };
        let missing = |source| Missing {
            wall: Wall::Pids,
            source,
        };
        match fork(flags) {
            Ok(fork) => Ok((fork, None)),
            Err(source) if best_effort => {
                let fork = fork(0).map_err(missing)?;
                Ok((fork, Some(missing(source))))
            }
            Err(source) => Err(missing(source)),
        }
    }
}

/// As fork(2), with flags. The C library's own takes none.
fn fork(flags: libc::c_int) -> io::Result<Fork> {
    let (held_by_child, held_by_parent) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut pidfd: libc::c_int = -1;
    // SAFETY: plain integers, for which zero is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = (flags | libc::CLONE_PIDFD) as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(address) = thread_number() {
        arguments.flags |= (libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID) as u64;
        arguments.child_tid = address;
    }
    // SAFETY: without CLONE_VM and a stack this is fork(2): the child has a copy of everything. The addresses
    // are of variables that live long enough in either process.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    })?;
    match rustix::process::Pid::from_raw(pid as i32) {
        None => {
            drop(held_by_parent);
            Ok(Fork::Child(Lifeline(held_by_child)))
        }
        Some(pid) => Ok(Fork::Parent(Child {
            pid,
            // SAFETY: the kernel has just made the descriptor, for us alone.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
            _lifeline: held_by_parent,
        })),
    }
}

/// Where the C library keeps the number of this thread, which is another one in a child: as its own fork does,
/// the kernel is asked to write the new one there.
fn thread_number() -> Option<u64> {
    let mut address: u64 = 0;
    // SAFETY: PR_GET_TID_ADDRESS stores a pointer. A kernel without it stores nothing.
    let result = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut address) };
    (result == 0 && address != 0).then_some(address)
}

/// Ties the child's life to its parent's.
#[derive(Debug)]
pub struct Lifeline(OwnedFd);

impl Lifeline {
    /// Makes the kernel kill this process as soon as its parent ends. A process that changes its user has to
    /// ask for it again.
    ///
    /// # Errors
    /// When the parent has ended already.
    pub fn hold(&self) -> io::Result<()> {
        // SAFETY: PR_SET_PDEATHSIG takes a number.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into())?;
        let mut end = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        poll(&mut end, Some(&Default::default()))?;
        match end[0].revents().is_empty() {
            true => Ok(()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
