//! The IDT, interrupt handlers, and calls into CPL0.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::entry::{KERNEL_CS, USER_CS, USER_DS, USER_RFLAGS, VECTORS};
use crate::{lapic, mmio, power, println};

/// First vector that is not an exception.
pub const FIRST_VECTOR: u8 = 0x20;
/// Present 64-bit interrupt gate, DPL 0.
const INTERRUPT_GATE: u64 = 0x8e00;
/// The invalid opcode exception, which also serves [`in_kernel`].
const INVALID_OPCODE: u64 = 6;

static HANDLERS: [AtomicUsize; VECTORS as usize] =
    [const { AtomicUsize::new(0) }; VECTORS as usize];

unsafe extern "C" {
    static guest_idt: u8;
    static guest_interrupt_stubs: u8;
    static guest_invalid_opcode: u8;
    static guest_user_stack_top: u8;
}

/// Sets `handler` for interrupts of `vector`. It runs at CPL0, where some hosts interpret
/// instructions and cannot do all of them: keep it to a few integer instructions and port
/// or memory accesses. The LAPIC is told the end of the interrupt afterwards.
pub fn set_handler(vector: u8, handler: fn()) {
    assert!(
        (FIRST_VECTOR..VECTORS).contains(&vector),
        "no such interrupt vector: {vector}"
    );
    HANDLERS[usize::from(vector)].store(handler as usize, Ordering::Relaxed);
}

/// Calls `function(argument)` at CPL0 with interrupts off, on the kernel stack. The limits
/// of [`set_handler`] hold.
///
/// The way there is an invalid instruction: on a host without hardware virtualization
/// neither `int` nor `syscall` takes CPL3 code to CPL0, but exceptions do.
pub fn in_kernel(function: extern "C" fn(u64) -> u64, argument: u64) -> u64 {
    unsafe extern "C" {
        fn guest_in_kernel(function: extern "C" fn(u64) -> u64, argument: u64) -> u64;
    }
    // SAFETY: it calls the function by the C convention and comes back with its result.
    unsafe { guest_in_kernel(function, argument) }
}

/// Waits at CPL0 for one interrupt and returns after its handler has run. An interrupt
/// that comes between a check by the caller and this call is taken at once, so the caller
/// checks with interrupts off, as they always are at CPL3.
pub fn wait() {
    extern "C" fn enable_and_halt(_: u64) -> u64 {
        // SAFETY: at CPL0; `sti` holds interrupts off for one instruction, so that none is
        // lost before `hlt`. Handlers use this stack below what is in use.
        unsafe { asm!("sti", "hlt", "cli") };
        0
    }
    in_kernel(enable_and_halt, 0);
}

/// Has interrupts taken at CPL3, too, from now on: they are off there otherwise.
pub fn enable() {
    unsafe extern "C" {
        safe fn guest_enable_interrupts(_: u64) -> u64;
    }
    in_kernel(guest_enable_interrupts, 0);
}

pub(crate) fn fill_idt() {
    let stubs = &raw const guest_interrupt_stubs as u64;
    for vector in 0..u64::from(VECTORS) {
        set_gate(vector, stubs + vector * 16);
    }
    set_gate(INVALID_OPCODE, &raw const guest_invalid_opcode as u64);
}

fn set_gate(vector: u64, target: u64) {
    let entry = &raw const guest_idt as u64 + vector * 16;
    let selector = u64::from(KERNEL_CS) << 16;
    let low = (target & 0xffff) | selector | INTERRUPT_GATE << 32 | (target >> 16 & 0xffff) << 48;
    // SAFETY: an entry of the IDT, which only assembly knows as memory.
    unsafe {
        mmio::write64(entry, low);
        mmio::write64(entry + 8, target >> 32);
    }
}

/// What a stub leaves on the stack.
#[repr(C)]
struct Frame {
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// All interrupts and exceptions come here, at CPL0.
#[unsafe(no_mangle)]
extern "C" fn guest_interrupt(frame: &mut Frame) {
    if frame.vector < u64::from(FIRST_VECTOR) {
        return report_at_user_level(frame);
    }
    let handler = HANDLERS
        .get(frame.vector as usize)
        .map_or(0, |slot| slot.load(Ordering::Relaxed));
    if handler == 0 {
        return report_at_user_level(frame);
    }
    // SAFETY: only `set_handler` stores there, and it stores a `fn()`.
    let handler: fn() = unsafe { core::mem::transmute(handler) };
    handler();
    lapic::end_of_interrupt();
}

/// Makes the interrupted code continue in [`report`] at CPL3: formatting text takes more
/// instructions, and other ones, than interpreted CPL0 code should use.
fn report_at_user_level(frame: &mut Frame) {
    let fault_address: u64;
    // SAFETY: at CPL0; reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) fault_address, options(nomem, nostack)) };
    frame.rdi = frame.vector;
    frame.rsi = frame.error;
    frame.rdx = frame.rip;
    frame.rcx = frame.cs;
    frame.r8 = fault_address;
    frame.rip = report as *const () as u64;
    frame.cs = USER_CS.into();
    frame.ss = USER_DS.into();
    frame.rflags = USER_RFLAGS;
    // As after a call: the return address would be here.
    frame.rsp = &raw const guest_user_stack_top as u64 - 8;
}

extern "C" fn report(vector: u64, error: u64, rip: u64, cs: u64, fault_address: u64) -> ! {
    println!(
        "guest exception: vector {vector} error {error:#x} rip {rip:#x} cpl {} cr2 {fault_address:#x}",
        cs & 3
    );
    power::off(crate::EXIT_EXCEPTION)
}

global_asm!(
    r#"
    .set vector, 0
    .text
    .balign 16
    .globl guest_interrupt_stubs
guest_interrupt_stubs:
    .rept {vectors}
    .balign 16
    # These exceptions push an error code; the others get a zero in its place.
    .if ((1 << vector) & 0x60227d00) == 0 || vector > 31
    push 0
    .endif
    push vector
    jmp 2f
    .set vector, vector + 1
    .endr

    .balign 16
2:  push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    cld
    mov rdi, rsp
    call guest_interrupt
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

    # At CPL3: the exception's handler below makes the call.
    .globl guest_in_kernel
guest_in_kernel:
    ud2
    ret

    .balign 16
    .globl guest_invalid_opcode
guest_invalid_opcode:
    cmp qword ptr [rsp], offset guest_in_kernel
    jne guest_interrupt_stubs + 6 * 16
    add qword ptr [rsp], 2      # past the ud2
    sub rsp, 8
    mov rax, rdi
    mov rdi, rsi
    call rax
    add rsp, 8
    iretq

    # Called as above: return address, 8 bytes, RIP, CS, RFLAGS.
    .globl guest_enable_interrupts
guest_enable_interrupts:
    or dword ptr [rsp + 32], 0x200
    xor eax, eax
    ret

    .bss
    .balign 16
    .globl guest_idt
guest_idt:
    .skip {vectors} * 16
    .text
"#,
    vectors = const VECTORS,
);
