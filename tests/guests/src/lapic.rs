//! The local APIC of the calling CPU (Intel SDM volume 3, chapter "APIC").
//!
//! xAPIC mode uses the registers in memory, which CPL3 may write; x2APIC mode, for APIC ids
//! above 254, uses MSRs.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::cpu::{read_msr, write_msr};
use crate::mmio::{read32, write32};

const BASE: u64 = 0xfee0_0000;
const ID: u64 = 0x20;
const EOI: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const ICR_LOW: u64 = 0x300;
const ICR_HIGH: u64 = 0x310;
const TIMER: u64 = 0x320;
const TIMER_COUNT: u64 = 0x380;
const TIMER_DIVIDE: u64 = 0x3e0;
const PERIODIC: u32 = 1 << 17;
const DIVIDE_BY_1: u32 = 0b1011;

const MSR_APIC_BASE: u32 = 0x1b;
const MSR_X2APIC_ID: u32 = 0x802;
const MSR_X2APIC_SPURIOUS: u32 = 0x80f;
const MSR_X2APIC_ICR: u32 = 0x830;
/// IA32_APIC_BASE: x2APIC mode.
const X2APIC_ENABLE: u64 = 1 << 10;

/// Spurious interrupt register: software enable, and vector 0x3f, whose low bits are set.
const ENABLE_SPURIOUS_3F: u32 = 0x100 | 0x3f;
/// ICR: INIT, level assert.
const INIT: u32 = 0x4500;
/// ICR: start-up, level assert; the low byte is the start page.
const STARTUP: u32 = 0x4600;

static X2APIC: AtomicBool = AtomicBool::new(false);

/// Lets the LAPIC deliver interrupts. KVM's table of destinations may miss the vCPU that
/// was created last until some LAPIC is enabled, so do this before sending any as well.
pub fn enable() {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: only enables.
        unsafe { write_msr(MSR_X2APIC_SPURIOUS, ENABLE_SPURIOUS_3F.into()) };
    } else {
        // SAFETY: a register of the LAPIC.
        unsafe { write32(BASE + SPURIOUS, ENABLE_SPURIOUS_3F) };
    }
}

/// Switches this CPU's LAPIC to x2APIC mode.
pub fn enable_x2apic() {
    let base = read_msr(MSR_APIC_BASE);
    // SAFETY: only adds the mode bit; the registers in memory are not used any more.
    unsafe { write_msr(MSR_APIC_BASE, base | X2APIC_ENABLE) };
    X2APIC.store(true, Ordering::Relaxed);
}

/// The APIC id of this CPU.
pub fn id() -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        read_msr(MSR_X2APIC_ID) as u32
    } else {
        read32(BASE + ID) >> 24
    }
}

/// Acknowledges the interrupt being handled. xAPIC mode only.
pub fn end_of_interrupt() {
    // SAFETY: a register of the LAPIC.
    unsafe { write32(BASE + EOI, 0) };
}

/// Has this CPU interrupted by `vector` again and again, whenever its timer has counted that far. xAPIC mode only.
pub fn start_timer(vector: u8, count: u32) {
    count_down(PERIODIC | u32::from(vector), count);
}

/// The same, once. xAPIC mode only.
pub fn start_timer_once(vector: u8, count: u32) {
    count_down(vector.into(), count);
}

fn count_down(mode: u32, count: u32) {
    // SAFETY: registers of the LAPIC; writing the count starts the timer.
    unsafe {
        write32(BASE + TIMER_DIVIDE, DIVIDE_BY_1);
        write32(BASE + TIMER, mode);
        write32(BASE + TIMER_COUNT, count);
    }
}

/// Resets the CPU with this APIC id and makes it wait for [`start_up`].
pub fn init(apic_id: u32) {
    command(apic_id, INIT);
}

/// Starts the CPU with this APIC id in real mode at physical `page << 12`.
pub fn start_up(apic_id: u32, page: u8) {
    command(apic_id, STARTUP | u32::from(page));
}

fn command(apic_id: u32, low: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        // SAFETY: an inter-processor interrupt to another CPU.
        unsafe { write_msr(MSR_X2APIC_ICR, u64::from(apic_id) << 32 | u64::from(low)) };
    } else {
        assert!(apic_id < 0xff, "APIC id {apic_id} needs x2APIC mode");
        // SAFETY: registers of the LAPIC; writing the low half sends.
        unsafe {
            write32(BASE + ICR_HIGH, apic_id << 24);
            write32(BASE + ICR_LOW, low);
        }
    }
}
