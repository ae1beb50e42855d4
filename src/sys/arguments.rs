//! The words that a process was started with.

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

static GIVEN: OnceLock<Vec<OsString>> = OnceLock::new();
/// Where those behind the program's name are, which others see in `/proc`, and how many bytes they take.
static SEEN: OnceLock<(usize, usize)> = OnceLock::new();

/// Takes them from C's `main`: not each C library tells Rust's of them where that does not begin the program.
///
/// # Safety
/// They are what `main` was called with, and nobody else looks at them.
pub unsafe fn give(count: c_int, words: *const *const c_char) {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: C has as many pointers there, each to a string that ends with a zero.
    let word = |place| unsafe { CStr::from_ptr(*words.add(place)) };
    let all = (0..count).map(|place| OsString::from_vec(word(place).to_bytes().to_vec()));
    let _ = GIVEN.set(all.collect());
    // SAFETY: as above.
    let ends = (0..count)
        .map(|place| unsafe { *words.add(place) } as usize + word(place).count_bytes() + 1);
    let ends: Vec<usize> = ends.collect();
    if let (Some(first), Some(last)) = (ends.first(), ends.last()) {
        let _ = SEEN.set((*first, last.saturating_sub(*first)));
    }
}

/// Where they are: at the upper end of the first thread's stack (execve(2)). None in a program that has not told.
pub(crate) fn place() -> Option<usize> {
    SEEN.get().map(|(first, _)| *first)
}

/// Has whoever lists processes see these words behind the program's name, as far as there is room for them, instead of those
/// that were given: a process that was forked does something else, and longer than a secret should be seen.
pub fn show(words: &[&str]) {
    let Some((first, bytes)) = SEEN.get() else {
        return;
    };
    let mut shown = words.join("\0").into_bytes();
    // The last byte stays zero, or what follows would be seen, too (get_mm_cmdline in Linux fs/proc/base.c).
    shown.truncate(bytes.saturating_sub(1));
    shown.resize(*bytes, 0);
    // SAFETY: the kernel has put the words there one behind the other, in memory that can be written (execve(2)); they were
    // copied, and whoever gave them has said that nobody looks at them.
    unsafe { std::ptr::copy_nonoverlapping(shown.as_ptr(), *first as *mut u8, *bytes) };
}

/// All of them; the first is the program's name.
pub fn all() -> impl Iterator<Item = OsString> {
    let given = GIVEN.get();
    let others = given.is_none().then(std::env::args_os);
    given
        .into_iter()
        .flatten()
        .cloned()
        .chain(others.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;

    #[test]
    fn others_see_what_is_shown() {
        alone("arguments::tests::others_see_what_is_shown", || {
            let mut words = *b"kvmlet\0run\0-e\0PASSWORD=x\0";
            let first = words.as_mut_ptr();
            let places = [0, 7, 11, 14].map(|place| first.wrapping_add(place) as *const c_char);
            // SAFETY: there are as many, each ends with a zero, and what is behind `words` is not looked at meanwhile.
            unsafe { give(4, places.as_ptr()) };
            let seen = || {
                // SAFETY: it is `words`, which was written through its address.
                unsafe { std::slice::from_raw_parts(first, 25) }.to_vec()
            };
            show(&["keep", "abc"]);
            assert_eq!(seen(), *b"kvmlet\0keep\0abc\0\0\0\0\0\0\0\0\0\0");
            show(&["keep", "0123456789abcdef"]);
            assert_eq!(seen(), *b"kvmlet\0keep\x000123456789ab\0");
            assert!(all().eq(["kvmlet", "run", "-e", "PASSWORD=x"].map(OsString::from)));
        });
    }
}
