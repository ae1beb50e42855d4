//! Words of a shared file that the kernel marks when the threads end that have them, however they end: robust futexes
//! (Linux Documentation/locking/robust-futex-ABI.rst), which are no locks here. Who reads the file sees at a glance
//! whether somebody was killed.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::cell::Cell;
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a word says whose thread has ended (`FUTEX_OWNER_DIED` in linux/futex.h).
pub const ENDED: u32 = 0x4000_0000;

const PAGE_BYTES: u64 = 4096;

/// What the kernel reads when the thread ends (`robust_list_head`), and the one element that the list can have.
#[repr(C)]
struct List {
    head: Cell<*const c_void>,
    /// From an element to its word.
    offset: Cell<isize>,
    pending: Cell<*const c_void>,
    element: Cell<*const c_void>,
    is_taken: Cell<bool>,
}

/// `struct robust_list_head`, without what is ours behind it.
const HEAD_BYTES: usize = 24;

thread_local! {
    static LIST: List = const {
        List {
            head: Cell::new(ptr::null()),
            offset: Cell::new(0),
            pending: Cell::new(ptr::null()),
            element: Cell::new(ptr::null()),
            is_taken: Cell::new(false),
        }
    };
}

/// A word that says which thread has it, as long as that lives. Dropping it leaves the word as it is, and the kernel
/// does, too. A process that is forked from this one does not see the file's memory. The end of a thread that nobody joins
/// may be missed: musl gives its memory back, the list among it, before the kernel reads that.
#[derive(Debug)]
pub struct Word {
    page: *mut c_void,
    /// This process and this thread.
    holder: (u32, u32),
}

// SAFETY: a pointer to nothing that is read or written through it. Another thread leaves the mapping where it is.
unsafe impl Send for Word {}
// SAFETY: nothing can be done through a shared reference.
unsafe impl Sync for Word {}

impl Word {
    /// Has a word of a file say that this thread lives: the one at `offset`, a multiple of four, of a file that is open
    /// to be read and written and has been written to there. `None` where this thread has one already.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take(file: &File, offset: u64) -> io::Result<Option<Self>> {
        LIST.with(|list| match list.is_taken.get() {
            true => Ok(None),
            false => Self::enter(list, file, offset).map(Some),
        })
    }

    fn enter(list: &List, file: &File, offset: u64) -> io::Result<Self> {
        let within = offset % PAGE_BYTES;
        if !within.is_multiple_of(4) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let (length, start) = (PAGE_BYTES as usize, offset - within);
        // SAFETY: a new mapping, of which this value alone knows.
        let page = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                access,
                MapFlags::SHARED,
                file,
                start,
            )?
        };
        let thread = rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        let word = Self {
            page,
            holder: (std::process::id(), thread),
        };
        // SAFETY: the page is mapped; it says who has it after a fork.
        unsafe { madvise(page, length, Advice::LinuxDontFork)? };
        let at = page.wrapping_byte_add(within as usize);
        // SAFETY: four bytes of the page, aligned; other processes change them as the kernel does, in one go.
        unsafe { AtomicU32::from_ptr(at.cast()) }.store(thread, Ordering::Relaxed);
        let head: *const c_void = ptr::from_ref(&list.head).cast();
        let element: *const c_void = ptr::from_ref(&list.element).cast();
        list.element.set(head);
        list.offset
            .set(at.addr().wrapping_sub(element.addr()).cast_signed());
        list.head.set(element);
        // SAFETY: the list is this thread's and lives as long. The C library's, which this replaces, is for mutexes of
        // processes that end while they hold them; there are none.
        match unsafe { libc::syscall(libc::SYS_set_robust_list, head, HEAD_BYTES) } {
            -1 => Err(io::Error::last_os_error()),
            _ => {
                list.is_taken.set(true);
                Ok(word)
            }
        }
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        let thread = rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        // To others than the thread itself the list is out of reach, and in a forked process there is none.
        if self.holder != (std::process::id(), thread) {
            return;
        }
        LIST.with(|list| {
            list.head.set(ptr::from_ref(&list.head).cast());
            list.is_taken.set(false);
        });
        // SAFETY: nobody else knows of the mapping, and the list no longer leads there.
        let _ = unsafe { munmap(self.page, PAGE_BYTES as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::sync::mpsc::channel;

    fn file() -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0; 8192], 0).unwrap();
        file
    }

    fn says(file: &File, offset: u64) -> u32 {
        let mut word = [0; 4];
        file.read_exact_at(&mut word, offset).unwrap();
        u32::from_ne_bytes(word)
    }

    #[test]
    fn the_end_of_a_thread_is_written_down() {
        let file = file();
        let (let_go, wait) = channel::<()>();
        let (tell, told) = channel();
        let theirs = file.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            let word = Word::take(&theirs, 4100).unwrap().unwrap();
            assert!(
                Word::take(&theirs, 8).unwrap().is_none(),
                "one for a thread"
            );
            tell.send(()).unwrap();
            let _ = wait.recv();
            std::mem::forget(word);
        });
        told.recv().unwrap();
        assert!((1..ENDED).contains(&says(&file, 4100)));
        drop(let_go);
        thread.join().unwrap();
        assert_eq!(says(&file, 4100), ENDED);
        assert_eq!(says(&file, 8), 0);
    }

    #[test]
    fn a_word_that_was_given_back_is_left_alone() {
        let file = file();
        std::thread::spawn({
            let file = file.try_clone().unwrap();
            move || {
                drop(Word::take(&file, 0).unwrap().unwrap());
                assert!(
                    Word::take(&file, 4).unwrap().is_some(),
                    "there is room for another"
                );
                drop(Word::take(&file, 3).unwrap_err());
            }
        })
        .join()
        .unwrap();
        assert_ne!(says(&file, 0), ENDED);
    }
}
