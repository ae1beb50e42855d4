//! Words of a shared file that the kernel marks when the threads end that have them, however they end: robust futexes
//! (Linux Documentation/locking/robust-futex-ABI.rst), which are no locks here. Who reads the file sees at a glance
//! whether somebody was killed.

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use std::cell::Cell;
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a word says whose thread has ended (`FUTEX_OWNER_DIED` in linux/futex.h).
pub const ENDED: u32 = 0x4000_0000;

const PAGE_BYTES: u64 = 4096;

/// How many words a thread can have.
const MOST: usize = 4;
/// Each has its element at the same place of pages of its own, of which the last may begin in one and end in the next.
const ROOM: usize = 2 * PAGE_BYTES as usize;
/// From an element to its word. There is one such distance for a whole list.
const APART: usize = MOST * ROOM;

/// What the kernel reads when the thread ends (`robust_list_head`).
#[repr(C)]
struct List {
    head: Cell<*const c_void>,
    /// From an element to its word.
    offset: Cell<isize>,
    pending: Cell<*const c_void>,
    /// Room for elements, of which each leads to the next and the last to the head, and behind it for words. There is some as
    /// long as there are words. After a fork elements are found to be zeros, and words are not there.
    room: Cell<*mut c_void>,
    elements: [Cell<*mut Element>; MOST],
}

type Element = *const c_void;

/// `struct robust_list_head`, without what is ours behind it.
const HEAD_BYTES: usize = 24;

thread_local! {
    static LIST: List = const {
        List {
            head: Cell::new(ptr::null()),
            offset: Cell::new(APART as isize),
            pending: Cell::new(ptr::null()),
            room: Cell::new(ptr::null_mut()),
            elements: [const { Cell::new(ptr::null_mut()) }; MOST],
        }
    };
}

/// A word that says which thread has it, as long as that lives. Dropping it leaves the word as it is, and the kernel
/// does, too. A process that is forked from this one does not see the file's memory. The end of a thread that nobody joins
/// may be missed: musl gives its memory back, the list among it, before the kernel reads that.
#[derive(Debug)]
pub struct Word {
    number: usize,
    /// This process and this thread.
    holder: (u32, u32),
}

impl Word {
    /// Has a word of a file say that this thread lives: the one at `offset`, a multiple of four, of a file that is open
    /// to be read and written and has been written to there. `None` where this thread has four already.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take(file: &File, offset: u64) -> io::Result<Option<Self>> {
        LIST.with(|list| list.take(file, offset))
    }

    /// Is this the thread that has it, and not one of a process that was forked from its own?
    pub fn is_held(&self) -> bool {
        let holder = (std::process::id(), thread());
        self.holder == holder && LIST.with(|list| list.has(self.number))
    }
}

fn thread() -> u32 {
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    thread.unsigned_abs()
}

impl List {
    fn take(&self, file: &File, offset: u64) -> io::Result<Option<Word>> {
        if !offset.is_multiple_of(4) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.elements().all(|it| self.next(it).is_null()) {
            self.begin()?;
        }
        let free = self.elements.iter().position(|it| it.get().is_null());
        let Some(number) = free else { return Ok(None) };
        let taken = self.enter(number, file, offset);
        if taken.is_err() {
            self.end_if_empty();
        }
        taken.map(Some)
    }

    fn elements(&self) -> impl Iterator<Item = *mut Element> {
        self.elements
            .iter()
            .map(Cell::get)
            .filter(|it| !it.is_null())
    }

    fn has(&self, number: usize) -> bool {
        let element = self.elements[number].get();
        !element.is_null() && !self.next(element).is_null()
    }

    /// What an element leads to: nothing in a process that was forked from its own.
    fn next(&self, element: *mut Element) -> Element {
        // SAFETY: elements are in the room, which is there as long as there are some. They are where words are, which are
        // shorter.
        unsafe { element.read_unaligned() }
    }

    fn set_next(&self, element: *mut Element, next: Element) {
        // SAFETY: as above.
        unsafe { element.write_unaligned(next) };
    }

    /// Makes an empty one.
    fn begin(&self) -> io::Result<()> {
        // What a fork has left of another process's.
        self.elements.iter().for_each(|it| it.set(ptr::null_mut()));
        self.end_if_empty();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, of which this list alone knows.
        unsafe {
            let room = mmap_anonymous(ptr::null_mut(), 2 * APART, access, MapFlags::PRIVATE)?;
            self.room.set(room);
            madvise(room, APART, Advice::LinuxWipeOnFork)?;
        }
        self.head.set(ptr::from_ref(&self.head).cast());
        // SAFETY: the list is this thread's and lives as long. The C library's, which this replaces, is for mutexes of
        // processes that end while they hold them; there are none.
        match unsafe { libc::syscall(libc::SYS_set_robust_list, &raw const self.head, HEAD_BYTES) }
        {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    fn enter(&self, number: usize, file: &File, offset: u64) -> io::Result<Word> {
        let within = offset % PAGE_BYTES;
        let element = self.room.get().wrapping_byte_add(number * ROOM);
        let page = element.wrapping_byte_add(APART);
        let [element, word] = [element, page].map(|it| it.wrapping_byte_add(within as usize));
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let (length, flags) = (PAGE_BYTES as usize, MapFlags::SHARED | MapFlags::FIXED);
        // SAFETY: the page is the list's, and nothing else is in it.
        unsafe {
            mmap(page, length, access, flags, file, offset - within)?;
            madvise(page, length, Advice::LinuxDontFork)?;
        }
        // SAFETY: four bytes of the page, aligned; other processes change them as the kernel does, in one go.
        unsafe { AtomicU32::from_ptr(word.cast()) }.store(thread(), Ordering::Relaxed);
        let element = element.cast();
        self.set_next(element, self.head.get());
        self.elements[number].set(element);
        self.head.set(element.cast_const().cast());
        Ok(Word {
            number,
            holder: (std::process::id(), thread()),
        })
    }

    /// Has nothing lead to an element and its word any more.
    fn leave(&self, number: usize) {
        if !self.has(number) {
            return;
        }
        let element = self.elements[number].get();
        let next = self.next(element);
        let leads_here = |at: Element| ptr::eq(at, element.cast_const().cast());
        if leads_here(self.head.get()) {
            self.head.set(next);
        }
        for other in self
            .elements()
            .filter(|other| leads_here(self.next(*other)))
        {
            self.set_next(other, next);
        }
        self.elements[number].set(ptr::null_mut());
        let page = self.room.get().wrapping_byte_add(APART + number * ROOM);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: the page is the list's, and nothing leads there any more.
        let _ = unsafe { mmap_anonymous(page, PAGE_BYTES as usize, ProtFlags::empty(), flags) };
        self.end_if_empty();
    }

    fn end_if_empty(&self) {
        if self.elements().next().is_none() && !self.room.get().is_null() {
            // SAFETY: nobody else knows of the mapping, and the list does not lead there.
            let _ = unsafe { munmap(self.room.replace(ptr::null_mut()), 2 * APART) };
        }
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        // To others than the thread itself the list is out of reach, and in a forked process there is none.
        if self.is_held() {
            LIST.with(|list| list.leave(self.number));
        }
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
            // The last of a page, and of another file.
            let last = Word::take(&theirs, 4092).unwrap();
            let other = tempfile::tempfile().unwrap();
            other.write_all_at(&[0; 4096], 0).unwrap();
            let others = Word::take(&other, 8).unwrap();
            let given_back = Word::take(&theirs, 12).unwrap().unwrap();
            assert!(
                Word::take(&theirs, 16).unwrap().is_none(),
                "four for a thread"
            );
            drop(given_back);
            tell.send(other).unwrap();
            let _ = wait.recv();
            std::mem::forget((word, last, others));
        });
        let other = told.recv().unwrap();
        let all = || [(&file, 4100), (&file, 4092), (&other, 8)].map(|(file, at)| says(file, at));
        assert!(all().iter().all(|word| (1..ENDED).contains(word)));
        drop(let_go);
        thread.join().unwrap();
        assert_eq!(all(), [ENDED; 3]);
        assert_ne!(says(&file, 12), ENDED, "it was given back");
        assert_eq!(says(&file, 16), 0);
    }

    #[test]
    fn a_forked_process_has_words_of_its_own() {
        let file = file();
        let words = [0, 8].map(|at| Word::take(&file, at).unwrap().unwrap());
        // SAFETY: the child, which has one thread, allocates nothing.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let holds = words.iter().any(Word::is_held);
            // What was its parent's it cannot give back, and neither is it in its way.
            drop(words);
            let taken = Word::take(&file, 4096).map(std::mem::forget);
            // SAFETY: ends the process.
            unsafe { libc::_exit(i32::from(holds || taken.is_err())) };
        }
        let mut status = -1;
        // SAFETY: the status is written to a number.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
        assert_eq!(says(&file, 4096), ENDED);
        assert!(
            [0, 8]
                .map(|at| says(&file, at))
                .iter()
                .all(|word| *word < ENDED)
        );
        let [first, second] = words;
        drop(first);
        std::mem::forget(second);
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
