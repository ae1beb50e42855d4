//! Saves and restores registers by the ports that stand in for XSAVE and XRSTOR, at CPL3 and with AVX: `bytes=N`, and what a
//! kernel relies on. Without the ports, or AVX, it says `none`.
#![no_std]
#![no_main]

use core::arch::asm;
use core::ptr::{read_volatile, write_volatile};

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::{cpu, port, println};

kvmlet_guests::program!(run);

const SAVE: u16 = 0x508;
const RESTORE: u16 = 0x50c;
/// Where things are in an area.
const MXCSR: usize = 24;
const XMM13: usize = 160 + 13 * 16;
const HEADER: usize = 512;
const YMM13: usize = 576 + 13 * 16;
const AVX: u64 = 1 << 2;
/// In ECX of CPUID's leaf 1.
const AVX_THERE: u32 = 1 << 28;
const UNTOUCHED: u8 = 0xee;

#[repr(C, align(4096))]
struct Area([u8; 4096]);

static mut AREA: Area = Area([UNTOUCHED; 4096]);

/// What is in one register, and the register of modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Registers {
    ymm13: [u64; 4],
    mxcsr: u32,
}

const FIRST: Registers = Registers {
    ymm13: [1, 2, 3, 4],
    mxcsr: 0x1fa0,
};
const SECOND: Registers = Registers {
    ymm13: [5, 6, 7, 8],
    mxcsr: 0x1f80,
};

/// Sets registers, writes to a port, and tells what is in the registers then. All others may have changed, too.
fn across(set: Registers, port: u16, value: u32) -> Registers {
    let (mut found, usual) = (set, SECOND);
    // SAFETY: the processor has AVX, and a port writes to `AREA` at the most.
    unsafe {
        asm!(
            "vmovdqu ymm13, [{set}]", "ldmxcsr [{set} + 32]", "out dx, eax",
            "vmovdqu [{found}], ymm13", "stmxcsr [{found} + 32]", "vzeroupper", "ldmxcsr [{usual} + 32]",
            set = in(reg) &raw const set, found = in(reg) &raw mut found, usual = in(reg) &raw const usual,
            in("dx") port, in("eax") value, clobber_abi("sysv64"), options(nostack)
        );
    }
    found
}

fn area() -> *mut u8 {
    (&raw mut AREA).cast()
}

/// The area's address as the ports take it: addresses are physical ones here.
fn number() -> u32 {
    (area() as usize >> 6) as u32
}

fn put<T>(place: usize, value: T) {
    // SAFETY: within the area.
    unsafe { write_volatile(area().add(place).cast(), value) };
}

fn get<T>(place: usize) -> T {
    // SAFETY: within the area, of numbers only.
    unsafe { read_volatile(area().add(place).cast()) }
}

fn run(_: &BootInfo) -> u8 {
    let bytes = port::inl(SAVE) as usize;
    // Whether its kernel has switched AVX on is no question here: on these hosts a guest's processes have what the host's have.
    if bytes > 4096 || cpu::cpuid(1, 0).ecx & AVX_THERE == 0 {
        println!("none");
        return 0;
    }
    println!("bytes={bytes}");

    assert_eq!(across(FIRST, SAVE, number()), FIRST);
    let saved = Registers {
        ymm13: [get(XMM13), get(XMM13 + 8), get(YMM13), get(YMM13 + 8)],
        mxcsr: get(MXCSR),
    };
    assert_eq!(saved, FIRST);
    assert_eq!(get::<[u64; 7]>(HEADER + 8), [0; 7]);
    assert!((bytes..4096).all(|place| get::<u8>(place) == UNTOUCHED));
    assert_eq!(across(SECOND, RESTORE, number()), FIRST);
    println!("restored");

    // What the header does not name begins anew, but for modes.
    put(HEADER, 0_u64);
    let initial = Registers {
        ymm13: [0; 4],
        ..FIRST
    };
    assert_eq!(across(SECOND, RESTORE, number()), initial);
    put(HEADER, AVX);
    let upper = Registers {
        ymm13: [0, 0, 3, 4],
        ..FIRST
    };
    assert_eq!(across(SECOND, RESTORE, number()), upper);
    println!("begun anew");

    // Names of what nobody has, and another format, are not heard.
    put(HEADER, u64::MAX);
    put(HEADER + 8, [u64::MAX; 7]);
    assert_eq!(across(SECOND, RESTORE, number()), FIRST);
    // A mode that no processor has is refused, and places where no memory is.
    put(MXCSR, u32::MAX);
    assert_eq!(across(SECOND, RESTORE, number()), SECOND);
    put(MXCSR, FIRST.mxcsr);
    for nowhere in [u32::MAX, (0xd000_0000_u32 - 64) >> 6, 0xfee0_0000 >> 6] {
        for port in [SAVE, RESTORE] {
            assert_eq!(across(SECOND, port, nowhere), SECOND);
        }
    }
    // Nor are other widths.
    port::outw(RESTORE, number() as u16);
    port::outb(RESTORE, number() as u8);
    assert_eq!(across(SECOND, RESTORE + 4, number()), SECOND);
    println!("nothing else");
    0
}
