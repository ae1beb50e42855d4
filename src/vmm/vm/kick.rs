//! Getting a thread out of KVM_RUN.
//!
//! A signal makes KVM_RUN return, but one that arrives just before the call would be lost. So the handler
//! also sets `immediate_exit` in the vCPU's `kvm_run`, and the call that follows returns at once (Linux
//! Documentation/virt/kvm/api.rst §5, `immediate_exit`).
//!
//! The signal is the process's, and this is a library: it takes the first real-time signal that nobody handles when
//! the first VM starts.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;
use vmm_sys_util::signal::{SIGRTMAX, SIGRTMIN, register_signal_handler};

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs. Constant initialization and no destructor make
    /// it safe to touch from a signal handler.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(null_mut()) };
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: `attend` got the pointer from a live kvm_run of this thread, and `Attention` takes it back
        // before that goes away. The kernel reads the byte at any time, hence the volatile write.
        unsafe { flag.write_volatile(1) };
    }
}

static SIGNAL: OnceLock<Result<libc::c_int, i32>> = OnceLock::new();

/// Chooses the signal and installs its handler, once for the process.
///
/// # Errors
/// EBUSY when all real-time signals have handlers, or what the kernel says.
pub(super) fn install() -> io::Result<()> {
    signal().map(drop)
}

/// The signal that calls vCPUs back. Chosen, and its handler installed, by whoever asks first.
fn signal() -> io::Result<libc::c_int> {
    let choose = || {
        let mut signals = SIGRTMIN()..=SIGRTMAX();
        let free = signals.find(|signal| is_free(*signal)).ok_or(libc::EBUSY)?;
        register_signal_handler(free, on_kick).map_err(|error| error.errno())?;
        Ok(free)
    };
    (*SIGNAL.get_or_init(choose)).map_err(io::Error::from_raw_os_error)
}

/// Does nobody in this process handle the signal?
fn is_free(signal: libc::c_int) -> bool {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with no new action the call only writes the old one to the place that it is given.
    match unsafe { libc::sigaction(signal, std::ptr::null(), old.as_mut_ptr()) } {
        0 => {
            // SAFETY: the call has written it.
            let handler = unsafe { old.assume_init() }.sa_sigaction;
            handler == libc::SIG_DFL || handler == libc::SIG_IGN
        }
        _ => false,
    }
}

/// Lets kicks through to this thread, whatever whoever started it has blocked.
fn unblock(signal: libc::c_int) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset writes the whole set; the other two calls get that set and a signal's number.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), null_mut());
    }
}

/// While this lives, kicks of this thread reach the vCPU it was made for.
pub(super) struct Attention(());

/// Makes kicks of this thread set the given `immediate_exit` byte.
///
/// # Safety
/// The pointer must stay valid until the returned value is dropped.
pub(super) unsafe fn attend(immediate_exit: *mut u8) -> Attention {
    IMMEDIATE_EXIT.set(immediate_exit);
    if let Ok(signal) = signal() {
        unblock(signal);
    }
    Attention(())
}

impl Drop for Attention {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(null_mut());
    }
}

/// A thread that is kicked, by the kernel's number of it. A `pthread_t` would not do: not each C library lets it pass to
/// other threads, or signals by a call that names the process, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Thread(libc::pid_t);

thread_local! {
    static NUMBER: Cell<libc::pid_t> = const { Cell::new(0) };
}

impl Thread {
    /// The one that asks. It is a system call for the first time.
    pub fn this() -> Self {
        if NUMBER.get() == 0 {
            NUMBER.set(rustix::thread::gettid().as_raw_nonzero().get());
        }
        Self(NUMBER.get())
    }

    /// Is it the one that asks? That is no system call.
    pub fn is_this(self) -> bool {
        self.0 == NUMBER.get()
    }
}

/// Kicks threads that are known to be alive.
pub(super) fn all<'a>(threads: impl IntoIterator<Item = &'a Thread>) {
    // Without one there is no vCPU thread: a VM does not start then.
    let Ok(signal) = signal() else { return };
    let mut threads = threads.into_iter().peekable();
    if threads.peek().is_none() {
        return;
    }
    let process = rustix::process::getpid().as_raw_nonzero().get();
    for Thread(number) in threads {
        // SAFETY: a thread takes itself off the list, under its lock, before it ends. The handler is
        // installed before any vCPU thread starts. Failure would mean an invalid signal number.
        unsafe { libc::syscall(libc::SYS_tgkill, process, *number, signal) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn of_the_embedder(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

    #[test]
    fn a_signal_that_somebody_handles_is_theirs() {
        let theirs = SIGRTMIN() + 7;
        assert!(is_free(theirs));
        register_signal_handler(theirs, of_the_embedder).unwrap();
        assert!(!is_free(theirs));
        let ours = signal().unwrap();
        assert!(ours != theirs && !is_free(ours));
    }

    #[test]
    fn a_thread_with_all_signals_blocked_is_reached() {
        let byte = Box::leak(Box::new(0u8));
        let flag: *mut u8 = byte;
        let mut every = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset writes the whole set, which only this thread's mask is set to.
        unsafe {
            libc::sigfillset(every.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, every.as_ptr(), null_mut());
        }
        // SAFETY: the byte is leaked, so it is there for ever.
        let attention = unsafe { attend(flag) };
        all(&[Thread::this()]);
        // SAFETY: as above; the handler ran in this thread before the call returned.
        assert_eq!(unsafe { flag.read_volatile() }, 1);
        drop(attention);
    }
}
