//! The code of this program, as memory.

use rustix::mm::{Advice, madvise};

/// Of this architecture.
const PAGE_BYTES: usize = 4096;

unsafe extern "C" {
    // The linker's: where the program begins, and where what it only reads and executes ends.
    static __executable_start: u8;
    static etext: u8;
}

/// Leaves the pages of this program's code and constants to the kernel's page cache, where all of them are: they do not count
/// as this process's memory until it needs them again, which takes a minor fault for some of them together. To be called
/// when most of what has run will not run again.
///
/// What a debugger has written into the code is lost.
pub fn leave_to_page_cache() {
    let start = (&raw const __executable_start).addr() & !(PAGE_BYTES - 1);
    let end = (&raw const etext).addr() & !(PAGE_BYTES - 1);
    let start = std::ptr::without_provenance_mut::<libc::c_void>(start);
    let length = end.saturating_sub(start.addr());
    // SAFETY: the range is of private mappings of this program's file that nobody writes to: what is read there next is the
    // same again.
    if let Err(error) = unsafe { madvise(start, length, Advice::LinuxDontNeed) } {
        log::debug!("code stays mapped: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident pages of this program's file, in KiB.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("RssFile:"));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.parse().unwrap()
    }

    #[test]
    fn code_that_has_run_is_mapped_no_more_and_runs_again() {
        let before = resident();
        // Other tests run beside, and need some of theirs.
        let least = (0..100).map(|_| {
            leave_to_page_cache();
            resident()
        });
        let least = least.min().unwrap();
        assert!(least < before * 3 / 4, "{least} KiB of {before}");
    }
}
