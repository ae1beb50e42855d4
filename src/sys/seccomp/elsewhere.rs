//! Calls that no VM of ours makes where the tests run, and that other hosts, C libraries and kernels make of the
//! same code. They ask for nothing but memory, the time, and to wait or go on waiting.

use super::{Check, Rule};

/// A call that every thread may make, though no test sees it made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The call.
    pub rule: Rule,
    /// Who makes it, and where.
    pub reason: &'static str,
}

/// All of them.
pub fn elsewhere() -> impl Iterator<Item = &'static Elsewhere> {
    ELSEWHERE.iter()
}

const fn any(call: libc::c_long, reason: &'static str) -> Elsewhere {
    let rule = Rule {
        call,
        check: Check::None,
    };
    Elsewhere { rule, reason }
}

// Numbers that libc has no names for (Linux arch/x86/entry/syscalls/syscall_64.tbl).
const SYS_FUTEX_WAKE: libc::c_long = 454;
const SYS_FUTEX_WAIT: libc::c_long = 455;
const SYS_FUTEX_REQUEUE: libc::c_long = 456;

const NO_VDSO: &str = "the clock cannot be read without a system call: the host's clock source is hpet, acpi_pm or Xen's, \
                       its TSC was marked unstable while the VM ran, or it was booted with vdso=0";
const NEWER_FUTEX: &str = "a C library that waits by the newer calls (Linux 5.16 and 6.7)";

const ELSEWHERE: &[Elsewhere] = &[
    any(
        libc::SYS_brk,
        "the allocator, when what it has is used up: when that is depends on all that was allocated before",
    ),
    any(libc::SYS_clock_gettime, NO_VDSO),
    any(libc::SYS_gettimeofday, NO_VDSO),
    any(libc::SYS_time, NO_VDSO),
    any(
        libc::SYS_restart_syscall,
        "the kernel has a thread go on waiting for the rest of its time after SIGCONT, a thawed cgroup or a \
         debugger's leave",
    ),
    any(
        libc::SYS_sched_yield,
        "Rust's channels, when two threads are at one place at the same time",
    ),
    any(libc::SYS_futex_waitv, NEWER_FUTEX),
    any(SYS_FUTEX_WAKE, NEWER_FUTEX),
    any(SYS_FUTEX_WAIT, NEWER_FUTEX),
    any(SYS_FUTEX_REQUEUE, NEWER_FUTEX),
    any(
        libc::SYS_rseq,
        "C libraries that take a thread's registration back at its end",
    ),
    any(
        libc::SYS_membarrier,
        "C libraries and allocators that have the kernel order memory for all threads",
    ),
    any(
        libc::SYS_sigaltstack,
        "Rust's runtime, at the end of each thread of a program with its handler of stack overflows; `kvmlet` goes \
         without, a program that this crate is built into may not",
    ),
    Elsewhere {
        rule: Rule {
            call: libc::SYS_madvise,
            check: Check::Equal(2, libc::MADV_HUGEPAGE as u32),
        },
        reason: "glibc, when it takes memory and GLIBC_TUNABLES has glibc.malloc.hugetlb=1",
    },
];
