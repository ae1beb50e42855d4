//! The words that a process was started with.

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

static GIVEN: OnceLock<Vec<OsString>> = OnceLock::new();

/// Takes them from C's `main`: not each C library tells Rust's of them where that does not begin the program.
///
/// # Safety
/// They are what `main` was called with.
pub unsafe fn give(count: c_int, words: *const *const c_char) {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: C has as many pointers there, each to a string that ends with a zero.
    let word = |place| unsafe { CStr::from_ptr(*words.add(place)) };
    let all = (0..count).map(|place| OsString::from_vec(word(place).to_bytes().to_vec()));
    let _ = GIVEN.set(all.collect());
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
