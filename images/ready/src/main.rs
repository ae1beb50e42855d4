//! Writes the line `ready` to standard output and ends with 0; with an argument, it stays.
//!
//! The same program is started as a process, in containers and in microVMs, so that what differs is
//! the launcher. It has no library under it and makes two system calls.
#![no_std]
#![no_main]

use core::arch::{asm, naked_asm};
use core::panic::PanicInfo;

const WRITE: usize = 1;
const PAUSE: usize = 34;
const EXIT_GROUP: usize = 231;
const LINE: &[u8] = b"ready\n";

/// The entry point (System V ABI, AMD64 supplement, §3.4.1): the number of arguments lies on the stack.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "mov rdi, [rsp]", "and rsp, -16", "call {main}", "ud2", main = sym run)
}

extern "C" fn run(arguments: usize) -> ! {
    // SAFETY: the kernel reads the line and nothing else.
    let written = unsafe { syscall(WRITE, 1, LINE.as_ptr() as usize, LINE.len()) };
    if arguments > 1 {
        loop {
            // SAFETY: no pointers.
            unsafe { syscall(PAUSE, 0, 0, 0) };
        }
    }
    exit(usize::from(written != LINE.len() as isize))
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: no pointers; it does not return.
        unsafe { syscall(EXIT_GROUP, code, 0, 0) };
    }
}

/// # Safety
///
/// The arguments must be what the call with this number expects.
unsafe fn syscall(number: usize, a: usize, b: usize, c: usize) -> isize {
    let result: isize;
    // SAFETY: the caller vouches for the arguments. The kernel changes rax, rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(2)
}
