//! Registers that belong to one process, of several that take turns on one vCPU. What runs there is this test.

use crate::harness::Test;
use crate::template;
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::process::ExitCode;

pub const TESTS: &[Test] = &[("each_process_keeps_its_vector_registers", run)];

/// The first argument by which this executable is the program in the guest.
const PROGRAM: &str = "--keep-registers";
/// Two that take turns show what is mixed up; the third has the vCPU change between more than two.
const PROCESSES: u8 = 3;
const SLEEPS: u32 = 100;
const SIGNALS: u32 = 10;
const FORKS: u32 = 3;

/// What a process keeps in registers: two halves of YMM, a ZMM that only AVX-512 has, and a mask.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept([u8; 64 * 3], u64);

impl Kept {
    fn of(number: u8) -> Self {
        let mut bytes = [0; 64 * 3];
        (0..)
            .zip(&mut bytes)
            .for_each(|(place, byte)| *byte = number ^ place);
        Self(bytes, u64::from(number) * 0x0101_0101_0101_0101)
    }
}

/// As a program: `--keep-registers` has some processes look after their registers, each of which tells how often it found them
/// changed. `None` if it was not called so.
pub fn program() -> Option<ExitCode> {
    if std::env::args().nth(1)? != PROGRAM {
        return None;
    }
    if !has_avx() {
        println!("a processor without AVX");
        return Some(ExitCode::SUCCESS);
    }
    let children = (1..=PROCESSES).map(|number| {
        // SAFETY: the only thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            look_after(number);
            std::process::exit(0);
        }
        child
    });
    for child in children.collect::<Vec<_>>() {
        // SAFETY: it stores nothing.
        let waited = unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        assert_eq!(waited, child);
    }
    Some(ExitCode::SUCCESS)
}

/// What the processor has. Whether the guest's kernel says that it has switched that on (OSXSAVE) is no question: where KVM
/// interprets kernels they say so on some processors and not on others, and processes have the host's registers on all.
fn has_avx() -> bool {
    __cpuid(1).ecx & 1 << 28 != 0
}

/// The part with bytes and words (AVX512BW).
fn has_avx_512() -> bool {
    __cpuid_count(7, 0).ebx & 1 << 30 != 0
}

/// Registers that this process has set stay as they are while others run, while a handler of signals sets them, and in a fork.
fn look_after(number: u8) {
    let handler: extern "C" fn(i32) = set_others;
    // SAFETY: the handler does nothing but to set registers that are restored.
    unsafe { libc::signal(libc::SIGUSR1, handler as usize) };
    let pause = libc::timespec {
        tv_sec: 0,
        tv_nsec: 1_000_000,
    };
    let (pause, process) = (&raw const pause as u64, u64::from(std::process::id()));
    let sleep = || across(libc::SYS_nanosleep, [pause, 0], number).1;
    let signal = || across(libc::SYS_kill, [process, libc::SIGUSR1 as u64], number).1;
    let sleeps = (0..SLEEPS).filter(|_| sleep()).count();
    let signals = (0..SIGNALS).filter(|_| signal()).count();
    let forks = (0..FORKS).filter(|_| fork(number)).count();
    println!("changed: {sleeps} by others, {signals} by signals, {forks} by forks");
}

/// Forks, and tells whether registers have changed in the parent or in the child.
fn fork(number: u8) -> bool {
    let (child, changed) = across(libc::SYS_fork, [0; 2], number);
    if child == 0 {
        // SAFETY: nothing is left to be done.
        unsafe { libc::_exit(changed.into()) };
    }
    let mut status = 0;
    // SAFETY: stores a number.
    let waited = unsafe { libc::waitpid(child as i32, &mut status, 0) };
    assert_eq!(i64::from(waited), child);
    changed || status != 0
}

/// Makes a system call, and tells what it returned and whether registers have changed meanwhile. There is nothing between
/// that and their setting that a compiler could make use of registers for.
fn across(call: libc::c_long, arguments: [u64; 2], number: u8) -> (i64, bool) {
    let kept = Kept::of(number);
    let mut found = kept;
    let mut result = call;
    if has_avx_512() {
        // SAFETY: the processor knows these instructions, which read and write what is there. No code of this program but this
        // uses the registers that are not named.
        unsafe {
            asm!(
                "vmovdqu64 zmm2, [r12]",
                "vmovdqu64 zmm13, [r12 + 64]",
                "vmovdqu64 zmm29, [r12 + 128]",
                "kmovq k3, [r12 + 192]",
                "syscall",
                "vmovdqu64 [r13], zmm2",
                "vmovdqu64 [r13 + 64], zmm13",
                "vmovdqu64 [r13 + 128], zmm29",
                "kmovq [r13 + 192], k3",
                "vzeroupper",
                in("r12") &raw const kept, in("r13") &raw mut found, inout("rax") result,
                in("rdi") arguments[0], in("rsi") arguments[1],
                out("rcx") _, out("r11") _, out("xmm2") _, out("xmm13") _,
            );
        }
    } else {
        // SAFETY: as above.
        unsafe {
            asm!(
                "vmovdqu ymm2, [r12]",
                "vmovdqu ymm13, [r12 + 64]",
                "syscall",
                "vmovdqu [r13], ymm2",
                "vmovdqu [r13 + 64], ymm13",
                "vzeroupper",
                in("r12") &raw const kept, in("r13") &raw mut found, inout("rax") result,
                in("rdi") arguments[0], in("rsi") arguments[1],
                out("rcx") _, out("r11") _, out("xmm2") _, out("xmm13") _,
            );
        }
    }
    (result, found != kept)
}

/// Sets the same registers to something else.
extern "C" fn set_others(_: i32) {
    let others = Kept::of(0x80);
    if has_avx_512() {
        // SAFETY: as above, and what is set is restored when the handler returns.
        unsafe {
            asm!(
                "vmovdqu64 zmm2, [{0}]",
                "vmovdqu64 zmm13, [{0} + 64]",
                "vmovdqu64 zmm29, [{0} + 128]",
                "kmovq k3, [{0} + 192]",
                in(reg) &raw const others, out("xmm2") _, out("xmm13") _,
            );
        }
    } else {
        // SAFETY: as above.
        unsafe {
            asm!(
                "vmovdqu ymm2, [{0}]",
                "vmovdqu ymm13, [{0} + 64]",
                in(reg) &raw const others, out("xmm2") _, out("xmm13") _,
            );
        }
    }
}

fn run() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    let place = tempfile::tempdir().unwrap();
    let text = r#"
        trap '$K rm -f registers >/dev/null' EXIT
        guest registers; $K exec registers /test --keep-registers
        "#;
    let (out, err) = template::script(text, place.path());
    let kept = "changed: 0 by others, 0 by signals, 0 by forks\n";
    assert_eq!(out, kept.repeat(PROCESSES.into()), "{err}");
}
