//! The stack of the first thread, which grows as it is touched, and shrinks by nothing but this.

use crate::arguments;
use rustix::mm::{Advice, madvise};

const PAGE_BYTES: usize = 4096;
/// How deep calls are thought to have been.
const DEEPEST: usize = 1 << 20;
/// What this call takes itself, and what a signal's handler needs beside it may be touched again.
const OWN_BYTES: usize = 1024;
/// Further from the words that the program was started with than this, it is another stack: the kernel keeps mappings away from the
/// first one for at least 128 MiB (`mmap_base` in its arch/x86/mm/mmap.c).
const NEAR: usize = 64 << 20;

/// Gives the kernel back what calls deeper than this one have touched and left. Nothing happens in other threads than the first, or
/// where the program has not [told](arguments::give) its words.
#[inline(never)]
pub fn give_back() {
    let here = 0_u8;
    let here = (&raw const here).addr();
    let is_first = arguments::place().is_some_and(|top| here < top && top - here < NEAR);
    if !is_first {
        return;
    }
    let end = (here - OWN_BYTES) & !(PAGE_BYTES - 1);
    let start = std::ptr::without_provenance_mut::<libc::c_void>(end - DEEPEST);
    // SAFETY: there is nothing but the rest of this stack, which nobody uses: a thread takes what is below its frames as it
    // comes. Where the stack is not that large yet is nothing, and that is all that the error tells.
    let _ = unsafe { madvise(start, DEEPEST, Advice::LinuxDontNeed) };
}
