//! Processes: starting them, signals to them, and their ends.

use core::arch::naked_asm;
use core::ffi::{CStr, c_void};
use core::ptr::null;

use linux_raw_sys::general::*;

use super::{Errno, Pid, duration_ms, syscall};

/// The number of this process.
pub fn getpid() -> Pid {
    // SAFETY: no arguments; it cannot fail.
    unsafe { call!(__NR_getpid) }.map_or(0, |pid| pid as Pid)
}

/// Ends this process.
pub fn exit(code: u8) -> ! {
    loop {
        // SAFETY: no pointers.
        let _ = unsafe { call!(__NR_exit_group, code) };
    }
}

/// Executes a program in place of this one; returns only if it cannot.
///
/// # Safety
///
/// `argv` and `envp` are arrays of pointers to C strings that end with a null pointer.
pub unsafe fn execve(path: &CStr, argv: *const *const i8, envp: *const *const i8) -> Errno {
    // SAFETY: as the caller says.
    match unsafe { call!(__NR_execve, path.as_ptr(), argv, envp) } {
        Err(error) => error,
        Ok(_) => Errno::EINVAL,
    }
}

/// Reaps a child process: its id (0 if WNOHANG is in `options` and none has ended) and its
/// status.
pub fn wait_any(options: u32) -> Result<(Pid, i32), Errno> {
    let mut status = 0i32;
    // SAFETY: the kernel writes one int.
    let pid = unsafe { call!(__NR_wait4, -1isize, &raw mut status, options) }?;
    Ok((pid as Pid, status))
}

/// Waits for the end of a child process; its status.
pub fn wait_for(pid: Pid) -> Result<i32, Errno> {
    loop {
        let mut status = 0i32;
        // SAFETY: the kernel writes one int.
        match unsafe { call!(__NR_wait4, pid as isize, &raw mut status, 0) } {
            Err(Errno::EINTR) => {}
            other => return other.map(|_| status),
        }
    }
}

const ALL_SIGNALS: u64 = !0;

fn set_signal_mask(mask: u64) {
    // SAFETY: the kernel reads one 8-byte signal set.
    let _ = unsafe {
        call!(
            __NR_rt_sigprocmask,
            SIG_SETMASK,
            &raw const mask,
            null::<u64>(),
            8
        )
    };
}

/// Keeps signals pending until [`wait_for_signal`] takes them.
pub fn block_all_signals() {
    set_signal_mask(ALL_SIGNALS);
}

/// Lets signals do what they do.
pub fn unblock_all_signals() {
    set_signal_mask(0);
}

/// Takes the next signal; [`Errno::EAGAIN`] if none comes in time.
pub fn wait_for_signal(timeout_ms: Option<u64>) -> Result<i32, Errno> {
    let set = ALL_SIGNALS;
    let time = timeout_ms.map(duration_ms);
    let time = time.as_ref().map_or(null(), core::ptr::from_ref);
    // SAFETY: set and time outlive the call; a null pointer asks for no siginfo, or no timeout.
    let signal = unsafe {
        call!(
            __NR_rt_sigtimedwait,
            &raw const set,
            null::<c_void>(),
            time,
            8
        )
    }?;
    Ok(signal as i32)
}

/// Starts a child that shares this process's memory, and suspends this process until the child
/// has executed a program or ended. No page table is copied and no page copied on write, which
/// is most of what a fork costs. `stack` is the child's.
///
/// # Safety
///
/// `child` is called with `argument`, on `stack`, whose size must suffice.
pub unsafe fn spawn(
    stack: &mut [u128],
    child: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> Result<Pid, Errno> {
    let flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    // SAFETY: `top` is aligned to 16 bytes as the ABI wants it; the rest is the caller's promise.
    match unsafe { clone_and_call(flags.into(), top, child, argument) } {
        pid if pid >= 0 => Ok(pid as Pid),
        error => Err(Errno::from_number(-error as i32)),
    }
}

#[unsafe(naked)]
unsafe extern "C" fn clone_and_call(
    flags: u64,
    stack_top: *mut c_void,
    child: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> isize {
    // The system call takes flags and stack where they are, and keeps r8 and r9.
    naked_asm!(
        "mov r8, rdx",
        "mov r9, rcx",
        "mov eax, {clone}",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "mov rdi, r9",
        "call r8",
        "ud2",
        "2: ret",
        clone = const __NR_clone,
    )
}
