//! Starting the other CPUs (Intel MultiProcessor Specification 1.4, appendix B.4).

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{cpu, lapic, mmio};

/// Where started CPUs begin: a page below 1 MiB that VMMs leave free after boot.
const TRAMPOLINE_PAGE: u8 = 0x08;
/// Most CPUs that can be recorded beside the first.
pub const MAX_STARTED: usize = 1023;
/// TSC ticks between INIT and start-up, well under a millisecond.
const INIT_TICKS: u64 = 500_000;

/// What a started CPU found out about itself.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct StartedCpu {
    /// Initial APIC id: CPUID leaf 1, EBX bits 31–24.
    pub apic_id: u32,
    /// x2APIC id: CPUID leaf 0xB, EDX.
    pub x2apic_id: u32,
}

unsafe extern "C" {
    static smp_trampoline: u8;
    static smp_trampoline_end: u8;
    static smp_recorded: AtomicU32;
    static smp_entry: AtomicU64;
    static smp_cpus: [StartedCpu; MAX_STARTED];
}

/// Puts the start code into low memory. Call it once, before [`start`].
pub fn prepare() {
    let (start, end) = (&raw const smp_trampoline, &raw const smp_trampoline_end);
    for offset in 0..end as u64 - start as u64 {
        let target = (u64::from(TRAMPOLINE_PAGE) << 12) + offset;
        // SAFETY: low memory that nothing of Rust's lies in.
        unsafe { mmio::write8(target, mmio::read8(start as u64 + offset)) };
    }
}

/// Starts the CPU with this APIC id; it records itself and halts.
pub fn start(apic_id: u32) {
    lapic::init(apic_id);
    cpu::spin_for(INIT_TICKS);
    lapic::start_up(apic_id, TRAMPOLINE_PAGE);
    lapic::start_up(apic_id, TRAMPOLINE_PAGE);
}

/// Starts the CPU with this APIC id, which records itself and goes on there, at CPL0 with interrupts off, with its LAPIC
/// enabled. One CPU only: there is one stack for that.
pub fn start_in(apic_id: u32, entry: unsafe extern "C" fn() -> !) {
    // SAFETY: defined below; no other CPU looks at it yet.
    unsafe { smp_entry.store(entry as usize as u64, Ordering::Release) };
    start(apic_id);
}

/// Number of CPUs that have recorded themselves.
pub fn recorded() -> usize {
    // SAFETY: defined below; other CPUs only add to it, atomically.
    unsafe { smp_recorded.load(Ordering::Acquire) as usize }
}

/// The CPUs that have recorded themselves. Only sound to call when no further CPU is about
/// to, so after waiting for all that were started.
pub fn started() -> &'static [StartedCpu] {
    // SAFETY: defined below, `recorded` never exceeds the length, and what was recorded is
    // not written again.
    unsafe { &smp_cpus[..recorded()] }
}

global_asm!(
    r#"
    .set TRAMPOLINE, {page} << 12

    # Copied to TRAMPOLINE; CS = TRAMPOLINE >> 4, IP = 0, DS = 0. From real mode straight
    # to long mode: fewer instructions to interpret than by way of protected mode.
    .section .rodata.smp, "a"
    .code16
    .globl smp_trampoline
smp_trampoline:
    cli
    lgdtl TRAMPOLINE + 2f - smp_trampoline
    movl $guest_page_tables, %eax
    movl %eax, %cr3
    movl $0x20, %eax            # PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx      # EFER: LME
    movl $0x100, %eax
    xorl %edx, %edx
    wrmsr
    movl $0x80000021, %eax      # PG, NE, PE
    movl %eax, %cr0
    ljmpl $0x10, $smp_long_mode
    .balign 4
2:  .word 0xffff
    .long guest_gdt
    .globl smp_trampoline_end
smp_trampoline_end:

    .text
    .code64
smp_long_mode:
    movl $1, %eax
    xorl %ecx, %ecx
    cpuid
    movl %ebx, %esi
    shrl $24, %esi
    movl $0xb, %eax
    xorl %ecx, %ecx
    cpuid
    movl $1, %eax
    lock xaddl %eax, smp_next
    cmpl ${max}, %eax
    jae 3f
    movl %esi, smp_cpus(, %rax, 8)
    movl %edx, smp_cpus + 4(, %rax, 8)
    lock incl smp_recorded
    movq smp_entry, %rdx
    testq %rdx, %rdx
    jz 3f
    movl $smp_stack_top, %esp
    lidt guest_idt_pointer
    movl $0xfee000f0, %eax      # as lapic::enable
    movl $0x13f, (%rax)
    jmpq *%rdx
3:  cli
    hlt
    jmp 3b

    .bss
    .balign 16
    .skip 4096
smp_stack_top:
    .globl smp_entry
smp_entry:
    .quad 0
smp_next:
    .long 0
    .globl smp_recorded
smp_recorded:
    .long 0
    .globl smp_cpus
smp_cpus:
    .skip {max} * 8
    .text
"#,
    page = const TRAMPOLINE_PAGE as u32,
    max = const MAX_STARTED,
    options(att_syntax)
);
