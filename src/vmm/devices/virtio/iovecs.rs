//! Buffers for one system call that reads or writes several.

use super::{Broken, Segment};
use crate::memory::GuestRam;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

/// Buffers for one vectored read or write. They are lent for `'a`: guest memory, and memory of ours.
pub struct Iovecs<'a> {
    list: Vec<libc::iovec>,
    bytes: usize,
    lent: PhantomData<&'a mut [u8]>,
}

impl<'a> Iovecs<'a> {
    /// The most that one call takes (`UIO_MAXIOV`).
    const MAX: usize = 1024;

    /// An empty list with the allocation of an old one.
    pub(super) fn reusing(spare: &mut Spare) -> Self {
        Self {
            list: std::mem::take(&mut spare.0),
            bytes: 0,
            lent: PhantomData,
        }
    }

    /// Gives the allocation back.
    pub(super) fn put_back(mut self, spare: &mut Spare) {
        self.list.clear();
        spare.0 = self.list;
    }

    /// Appends memory of ours.
    pub fn push(&mut self, buffer: &'a mut [u8]) {
        self.append(buffer.as_mut_ptr(), buffer.len());
    }

    /// Appends guest memory.
    ///
    /// # Errors
    /// When a segment is not in RAM, which a [chain's](crate::devices::virtio::Chain) are.
    pub fn push_guest(
        &mut self,
        memory: &'a GuestRam,
        segments: impl Iterator<Item = Segment>,
    ) -> Result<(), Broken> {
        for segment in segments {
            let slice = segment.slice(memory)?;
            self.append(slice.ptr_guard_mut().as_ptr(), slice.len());
        }
        Ok(())
    }

    fn append(&mut self, start: *mut u8, bytes: usize) {
        self.list.push(libc::iovec {
            iov_base: start.cast(),
            iov_len: bytes,
        });
        self.bytes += bytes;
    }

    /// How many more buffers one call takes.
    pub fn room(&self) -> usize {
        Self::MAX.saturating_sub(self.list.len())
    }

    /// Size of all buffers together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies what the buffers begin with, and returns how much that is.
    pub fn copy_beginning(&self, into: &mut [u8]) -> usize {
        let bytes = self.list.iter().flat_map(|buffer| {
            let start: *const u8 = buffer.iov_base.cast();
            // SAFETY: it is within the buffer, which is mapped and lent to this value. Of guest memory, which others may
            // change at any time, each byte is read once.
            (0..buffer.iov_len).map(move |place| unsafe { start.add(place).read_volatile() })
        });
        let copied = into
            .iter_mut()
            .zip(bytes)
            .map(|(place, byte)| *place = byte);
        copied.count()
    }

    /// Fills the buffers by one `readv`, which a datagram socket or a tap answers with one frame.
    ///
    /// # Errors
    /// As `readv`.
    pub fn read_from(&self, file: &(impl AsFd + ?Sized)) -> io::Result<usize> {
        let (list, count) = (self.list.as_ptr(), self.count());
        // SAFETY: each entry is memory that is mapped and lent to this value, guest memory (which others may
        // change at any time, and nobody reads as a Rust reference) or an exclusive slice.
        check(unsafe { libc::readv(file.as_fd().as_raw_fd(), list, count) })
    }

    /// Writes the buffers by one `writev`.
    ///
    /// # Errors
    /// As `writev`.
    pub fn write_to(&self, file: &(impl AsFd + ?Sized)) -> io::Result<usize> {
        let (list, count) = (self.list.as_ptr(), self.count());
        // SAFETY: as in `read_from`; the memory is only read.
        check(unsafe { libc::writev(file.as_fd().as_raw_fd(), list, count) })
    }

    fn count(&self) -> libc::c_int {
        self.list.len().min(Self::MAX) as libc::c_int
    }
}

/// The allocation of an [`Iovecs`] between two uses.
#[derive(Default)]
pub(super) struct Spare(Vec<libc::iovec>);

// SAFETY: the list is always empty, so it shares nothing with any thread.
unsafe impl Send for Spare {}

fn check(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
