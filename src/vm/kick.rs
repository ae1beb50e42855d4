//! Getting a thread out of KVM_RUN.
//!
//! A signal makes KVM_RUN return, but one that arrives just before the call would be lost. So the handler
//! also sets `immediate_exit` in the vCPU's `kvm_run`, and the call that follows returns at once (Linux
//! Documentation/virt/kvm/api.rst §5, `immediate_exit`).

use std::cell::Cell;
use std::io;
use std::ptr::null_mut;
use std::sync::OnceLock;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

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

/// Installs the signal handler, once for the process.
pub(super) fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| register_signal_handler(SIGRTMIN(), on_kick).map_err(|e| e.errno()))
        .map_err(io::Error::from_raw_os_error)
}

/// While this lives, kicks of this thread reach the vCPU it was made for.
pub(super) struct Attention(());

/// Makes kicks of this thread set the given `immediate_exit` byte.
///
/// # Safety
/// The pointer must stay valid until the returned value is dropped.
pub(super) unsafe fn attend(immediate_exit: *mut u8) -> Attention {
    IMMEDIATE_EXIT.set(immediate_exit);
    Attention(())
}

impl Drop for Attention {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(null_mut());
    }
}

/// Kicks threads that are known to be alive.
pub(super) fn all<'a>(threads: impl IntoIterator<Item = &'a libc::pthread_t>) {
    for thread in threads {
        // SAFETY: a thread takes itself off the list, under its lock, before it ends. The handler is
        // installed before any vCPU thread starts. Failure would mean an invalid signal number.
        unsafe { libc::pthread_kill(*thread, SIGRTMIN()) };
    }
}
