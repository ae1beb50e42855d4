//! The far side of a queue pair, and the buffers that go to and from it.

use crate::devices::virtio::{Broken, Segment};
use crate::memory::GuestMemory;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use vm_memory::GuestMemoryBackend;

/// What frames are sent to and received from: a queue of a tap, or a socket in a test.
///
/// Every frame has the 12 bytes of `virtio_net_hdr_v1` (virtio 1.2 §5.1.6) in front. The descriptor is
/// readable when frames wait, and writable when frames can be sent.
pub trait Port: AsFd + Send + Sync {
    /// Takes the next frame and returns the bytes that it has filled, header included. Of a frame that is
    /// longer than the buffers the rest is lost.
    ///
    /// # Errors
    /// `WouldBlock` when no frame waits.
    fn recv(&self, into: &Iovecs) -> io::Result<usize> {
        into.read_from(self)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// `WouldBlock` when the far side takes none now; what else is wrong concerns this frame.
    fn send(&self, frame: &Iovecs) -> io::Result<()> {
        frame.write_to(self).map(drop)
    }

    /// Says what frames towards the guest may leave to it.
    ///
    /// # Errors
    /// When the far side cannot keep to it.
    fn set_offloads(&self, offloads: Offloads) -> io::Result<()>;

    /// Joins in or stays out: frames for the guest go only to ports that are attached.
    ///
    /// # Errors
    /// When the far side refuses.
    fn attach(&self, attached: bool) -> io::Result<()>;
}

/// What the guest does for frames that it receives, instead of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// It takes frames with a checksum that is not filled in.
    pub checksum: bool,
    /// It takes TCP segments larger than its MTU, over IPv4.
    pub tso4: bool,
    /// The same over IPv6.
    pub tso6: bool,
    /// Such segments may have ECN set.
    pub ecn: bool,
}

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
        memory: &'a GuestMemory,
        segments: impl Iterator<Item = Segment>,
    ) -> Result<(), Broken> {
        for segment in segments {
            let slice = memory.get_slice(segment.address, segment.bytes as usize)?;
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
