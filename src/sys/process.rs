//! Processes forked from this one, or started by it.

use super::wait::{self, Slot, Until};
use rustix::fs::{FileType, fstat, makedev};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal, waitid,
};
use std::fs::read_to_string;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// linux/sched.h; libc's constant is cut to 32 bits.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Is it `/dev/null`, whatever its name here (Linux Documentation/admin-guide/devices.txt)?
pub fn is_null(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|found| {
        FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
            && found.st_rdev == makedev(1, 3)
    })
}

/// Ends this process at once: what its parent has registered for its own end, and not written yet, is the parent's.
pub fn end(code: u8) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code.into()) }
}

/// A descriptor that whoever started this process has opened for it, by its number; no program that this one executes
/// has it. Nothing else is opened yet that could have the number.
///
/// # Errors
/// When it is not open.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: sets a flag of a descriptor, if there is one.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and nobody else in this process knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has a descriptor stay open in the program that is executed next. It makes no other system call, and takes no memory.
///
/// # Errors
/// When it is not open.
pub fn keep(number: RawFd) -> io::Result<()> {
    // SAFETY: sets a flag of a descriptor, if there is one.
    let kept = unsafe { libc::fcntl(number, libc::F_SETFD, 0) } != -1;
    kept.then_some(()).ok_or_else(io::Error::last_os_error)
}

/// What helps where no further process or thread is given (EAGAIN in clone(2)): each counts.
pub const MORE_PROCESSES: &str = "end other processes of this user, or allow it more (`ulimit -u`); a container or a service may \
     have a limit of its own (pids.max of its cgroup, TasksMax)";

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with an exit code.
    Exited(u8),
    /// By a signal.
    Killed(i32),
}

/// A process forked from this one. Dropping it leaves the process alone.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    fd: OwnedFd,
}

impl Child {
    /// The process's number, as this process sees it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal; one that has ended gets none.
    ///
    /// # Errors
    /// When the process may not be signalled.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the process's end. It cannot be waited for again.
    ///
    /// # Errors
    /// When it is not there to be waited for.
    pub fn wait(self) -> io::Result<Ended> {
        let status = self.status(WaitIdOptions::EXITED)?;
        match status.as_ref().and_then(|status| status.exit_status()) {
            Some(code) => Ok(Ended::Exited(code as u8)),
            None => {
                let signal = status.and_then(|status| status.terminating_signal());
                Ok(Ended::Killed(signal.unwrap_or(0)))
            }
        }
    }

    /// Waits for the process if it has ended, and is not there any more then.
    ///
    /// # Errors
    /// When it is not there to be waited for.
    pub fn reap(&self) -> io::Result<bool> {
        let status = self.status(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
        Ok(status.is_some())
    }

    fn status(&self, options: WaitIdOptions) -> rustix::io::Result<Option<WaitIdStatus>> {
        loop {
            match waitid(WaitId::PidFd(self.fd.as_fd()), options) {
                Err(rustix::io::Errno::INTR) => {}
                // Linux 5.3 cannot wait by a handle. A child that was not waited for keeps its number.
                Err(rustix::io::Errno::INVAL) => match waitid(WaitId::Pid(self.pid), options) {
                    Err(rustix::io::Errno::INTR) => {}
                    result => return result,
                },
                result => return result,
            }
        }
    }
}

/// Readable when the process has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Starts a program as a child of this process.
///
/// # Errors
/// What the host says, of the program or of another process.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut spawned = command.spawn()?;
    let pid = Pid::from_child(&spawned);
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Ok(Child { pid, fd }),
        Err(error) => {
            let _ = spawned.kill();
            let _ = spawned.wait();
            Err(error.into())
        }
    }
}

/// Which of the two processes this is, after a [fork].
#[derive(Debug)]
pub enum Fork {
    /// The one that forked.
    Parent(Child),
    /// The new one.
    Child(Lifeline),
}

/// Splits this process in two. The child is in new namespaces of the kinds that are given (`CLONE_NEW*`), and
/// is killed when its parent ends first; see [`Lifeline::hold`]. It is born in `cgroup`, the directory of one of
/// version 2, if the kernel can do that (Linux 5.7) and the cgroup takes it.
///
/// # Errors
/// When this process has more than one thread (the child would have one, and maybe the others' locks), or the
/// host gives no process, or no such namespace.
pub fn fork(namespaces: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let parent = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    if let Some(child) = split(namespaces, cgroup)? {
        return Ok(Fork::Parent(child));
    }
    let lifeline = Lifeline(parent);
    if lifeline.hold().is_err() {
        // SAFETY: ends the process.
        unsafe { libc::_exit(128 + libc::SIGKILL) };
    }
    Ok(Fork::Child(lifeline))
}

/// Splits this process in two as [`fork`] does, but the child outlives its parent. To it nothing is returned.
///
/// # Errors
/// As of a [`fork`].
pub fn fork_apart(namespaces: libc::c_int) -> io::Result<Option<Child>> {
    split(namespaces, None)
}

/// The child, or nothing to the child.
fn split(namespaces: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Child>> {
    if !has_one_thread()? {
        return Err(io::Error::other(
            "a process with several threads cannot be forked",
        ));
    }
    let mut flags = namespaces | libc::CLONE_PIDFD;
    let number = thread_number();
    if number != 0 {
        flags |= ABOUT_NUMBER;
    }
    let mut pidfd: libc::c_int = -1;
    let born_inside = cgroup.map(|cgroup| clone_into(cgroup, flags, &mut pidfd, number));
    let pid = match born_inside {
        Some(pid) if pid != -1 => pid,
        // SAFETY: without CLONE_VM and a stack this is fork(2), which takes no flags: the child, the only thread
        // as its parent is, has a copy of everything. The addresses are of variables that outlive the call.
        _ => unsafe {
            let flags = flags | libc::SIGCHLD;
            libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, number, 0)
        },
    };
    if pid == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(pid as i32).map(|pid| {
        // SAFETY: the kernel has just made the descriptor, for us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Child { pid, fd }
    }))
}

/// A directory has two links more than it has directories in it.
const LINKS_OF_ONE: u64 = 3;

/// Has this process no thread but this one?
///
/// # Errors
/// When the kernel does not tell and /proc cannot be read.
pub fn has_one_thread() -> io::Result<bool> {
    has_one_thread_or(|| Ok(std::fs::metadata("/proc/self/task")?.nlink()))
}

/// The same; `links` tells how many links `task` has, this process's directory of threads in /proc. It is asked where
/// the kernel may not be: a container's list of system calls tends to forbid `unshare`, a chroot tends to have no
/// /proc.
///
/// # Errors
/// What `links` says.
pub fn has_one_thread_or(links: impl Fn() -> io::Result<u64>) -> io::Result<bool> {
    // SAFETY: it would leave the other threads alone if there are none, and fails otherwise (unshare(2)).
    match unsafe { libc::unshare(libc::CLONE_THREAD) } {
        0 => Ok(true),
        _ if io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) => Ok(false),
        _ => Ok(links()? == LINKS_OF_ONE),
    }
}

/// Has this process no thread but this one, by and by? A thread that has been joined takes the kernel a moment longer.
///
/// # Errors
/// What `is_single` says.
pub fn becomes_single(is_single: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
    // The kernel ends a thread in microseconds, unless its processor is taken away meanwhile: by the host of a virtual
    // machine, say, for tens of milliseconds.
    const PATIENCE: Duration = Duration::from_secs(10);
    const PROMPT: Duration = Duration::from_millis(1);
    const PAUSE: Duration = Duration::from_micros(100);
    let since = Instant::now();
    while !is_single()? {
        match since.elapsed() {
            waited if waited < PROMPT => std::thread::yield_now(),
            waited if waited < PATIENCE => std::thread::sleep(PAUSE),
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// How much memory of a process and of its children is in RAM, in bytes; 0 for one that is gone. (`VmRSS` in
/// proc_pid_status(5). Where the kernel lists no children, CONFIG_PROC_CHILDREN, they do not count.)
pub fn resident_bytes_with_children(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter();
    let lists = threads.flatten().flatten();
    let lists = lists.filter_map(|thread| read_to_string(thread.path().join("children")).ok());
    // Each thread has its own children.
    let children: Vec<u32> = lists
        .flat_map(|list| {
            list.split(' ')
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    let kib = |pid: u32| -> Option<u64> {
        let text = read_to_string(format!("/proc/{pid}/status")).ok()?;
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix("VmRSS:"))?;
        value.trim().trim_end_matches(" kB").parse().ok()
    };
    let kib: u64 = children.into_iter().chain([pid]).filter_map(kib).sum();
    kib.saturating_mul(1024)
}

/// What clone3(2) returns; -1 where it cannot do this.
fn clone_into(
    cgroup: BorrowedFd<'_>,
    flags: libc::c_int,
    pidfd: &mut libc::c_int,
    number: usize,
) -> libc::c_long {
    // SAFETY: all-zero is a valid value of this structure of numbers.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags as u64 | CLONE_INTO_CGROUP;
    arguments.pidfd = std::ptr::from_mut(pidfd) as u64;
    arguments.child_tid = number as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: as fork(2), for there is neither CLONE_VM nor a stack; the addresses are of variables that outlive
    // the call.
    unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of_val(&arguments),
        )
    }
}

/// Where the C library keeps the number of this thread: as for a fork of its own, the kernel is asked to write
/// the child's there. Zero if it cannot be told (Linux without CONFIG_CHECKPOINT_RESTORE); only who signals
/// the child's first thread by its `pthread_t` would notice.
#[cfg(target_env = "gnu")]
fn thread_number() -> usize {
    let mut address = 0;
    // SAFETY: PR_GET_TID_ADDRESS stores a pointer, or nothing.
    unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut address) };
    address
}

/// The same, where the kernel clears something else when a thread ends: musl has the number in front of `errno`.
#[cfg(not(target_env = "gnu"))]
fn thread_number() -> usize {
    // SAFETY: both are fields of what the library has of each thread, and not its first.
    let place = unsafe { libc::__errno_location().sub(1) };
    // SAFETY: as above.
    match unsafe { place.read() } == rustix::thread::gettid().as_raw_nonzero().get() {
        true => place.addr(),
        false => 0,
    }
}

/// What the kernel does with the number of the child's thread: it writes it there, and glibc wants zero there in the end.
const ABOUT_NUMBER: libc::c_int = match cfg!(target_env = "gnu") {
    true => libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID,
    false => libc::CLONE_CHILD_SETTID,
};

/// Ties a process's life to that of its parent.
#[derive(Debug)]
pub struct Lifeline(OwnedFd);

impl Lifeline {
    /// Has the kernel kill this process when its parent ends. It forgets that when the process changes its user,
    /// group or capabilities: then this is to be called again.
    ///
    /// # Errors
    /// When the parent has ended already.
    pub fn hold(&self) -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before it was to be noticed.
        match wait::one(Slot::readable(self.0.as_fd()), Until::Now)? {
            false => Ok(()),
            true => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
