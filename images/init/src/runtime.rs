//! What a program needs to have under it before `main`: an entry point, an allocator, a panic
//! handler, and the memory functions that the compiler calls by name.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::{asm, naked_asm};
use core::cell::{Cell, UnsafeCell};
use core::ffi::{CStr, c_char};
use core::panic::PanicInfo;

use crate::{console, power};

/// The entry point (System V ABI, AMD64 supplement, §3.4.1). Of what the kernel leaves on the stack only the name that the
/// program was executed by and one argument are of interest.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {main}", "ud2", main = sym start)
}

extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the kernel leaves there how many arguments there are, and pointers to them.
    let (count, arguments) = unsafe { (*stack, stack.add(1)) };
    let argument = |index: usize| {
        // SAFETY: there are as many pointers to strings, which end with NUL and stay there.
        (index < count).then(|| unsafe { CStr::from_ptr(*arguments.add(index) as *const c_char) })
    };
    crate::main(argument(0), argument(1))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::say(format_args!("cannot go on, this is a bug: {info}"));
    power::at_once(kvmlet_contract::EXIT_INIT_FAILED)
}

/// Hands out memory from a fixed area and takes back only what was handed out last, and [`scoped`]: init
/// allocates while it reads its configuration, and while it starts a process.
#[repr(C, align(4096))]
struct Arena {
    bytes: UnsafeCell<[u8; Self::SIZE]>,
    used: Cell<usize>,
    /// The most that was ever in use; what is beyond is still zero, as the kernel gave it.
    touched: Cell<usize>,
}

impl Arena {
    /// A generous bound: the command line is 2 KiB and a service file at most 64 KiB. Pages that
    /// are never touched cost nothing.
    const SIZE: usize = 1 << 20;

    fn set_used(&self, used: usize) {
        self.used.set(used);
        self.touched.set(self.touched.get().max(used));
    }
}

// SAFETY: there is one thread, and the child that shares its memory runs while it is suspended.
unsafe impl Sync for Arena {}

// SAFETY: blocks do not overlap (`used` only falls by the size of the last block), have the
// alignment asked for, and stay valid since the arena is static.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.bytes.get().cast::<u8>();
        let start = (base as usize + self.used.get()).next_multiple_of(layout.align());
        let start = start - base as usize;
        match start.checked_add(layout.size()) {
            Some(end) if end <= Self::SIZE => {
                self.set_used(end);
                // SAFETY: `start` is within the array.
                unsafe { base.add(start) }
            }
            _ => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let start = block as usize - self.bytes.get() as usize;
        if start + layout.size() == self.used.get() {
            self.used.set(start);
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let untouched = self.touched.get();
        // SAFETY: the caller's contract is the same.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            let start = block as usize - self.bytes.get() as usize;
            let dirty = untouched.saturating_sub(start).min(layout.size());
            // SAFETY: `dirty` is at most the length of the block.
            unsafe { memset(block, 0, dirty) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let start = block as usize - self.bytes.get() as usize;
        if start + layout.size() == self.used.get() && start + size <= Self::SIZE {
            // It is the last block, and grows or shrinks where it is.
            self.set_used(start + size);
            return block;
        }
        // SAFETY: the caller says that the layout is the block's and that the size is valid for it.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                memcpy(new, block, size.min(layout.size()));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

/// Runs `work` and takes back all that it allocated, so that a loop can go on for ever. What it leaves behind stays in use
/// only as far as it is worth keeping.
///
/// # Safety
///
/// Nothing that is allocated in `work` is used after it: neither its result nor what it changed refers to such memory.
pub unsafe fn scoped<T>(work: impl FnOnce() -> T) -> T {
    let mark = ARENA.used.get();
    let result = work();
    ARENA.used.set(mark);
    let kept = mark + KEPT;
    if ARENA.touched.get() > kept {
        let base = ARENA.bytes.get() as usize;
        // Up to whole pages, so that what is beyond is zero as `touched` says.
        let start = (base + kept).next_multiple_of(PAGE);
        // SAFETY: nobody uses what is beyond `mark`, and the arena ends behind the last page that was touched.
        unsafe { crate::sys::discard(start, (base + ARENA.touched.get()).next_multiple_of(PAGE)) };
        ARENA.touched.set(start - base);
    }
    result
}

/// How much of the arena stays with the process for the next time.
const KEPT: usize = 32 << 10;
const PAGE: usize = 4096;

#[global_allocator]
static ARENA: Arena = Arena {
    used: Cell::new(0),
    touched: Cell::new(0),
    bytes: UnsafeCell::new([0; Arena::SIZE]),
};

// The compiler emits calls of the following five. String instructions cannot be turned back into
// such calls, as loops could.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller says that both areas are `count` bytes long and do not overlap.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: going upwards, no byte is overwritten before it is read.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: `count` is not 0 here, and going downwards no byte is overwritten before it is
    // read. The direction flag is clear again at the end, as the ABI wants it.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _,
             inout("rdi") to.add(count - 1) => _, inout("rsi") from.add(count - 1) => _,
             options(nostack));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller says that the area is `count` bytes long.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8,
             options(nostack, preserves_flags));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    for i in 0..count {
        // SAFETY: the caller says that both areas are `count` bytes long.
        let (a, b) = unsafe { (*a.add(i), *b.add(i)) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(a, b, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller says that a NUL byte ends the text.
    while unsafe { *text.add(length) } != 0 {
        length += 1;
    }
    length
}

// The `core` library as shipped refers to these for unwinding, which a build with `panic = "abort"`
// never does; only an optimised link drops the references.

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    crate::sys::exit(kvmlet_contract::EXIT_INIT_FAILED)
}
