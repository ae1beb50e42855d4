//! The far side of a queue pair.

use crate::devices::virtio::Iovecs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// What frames are sent to and received from: a queue of a tap, or a socket whose other end is another process's.
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

    /// Another descriptor that is readable when frames wait, if there is one.
    fn beside(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether frames may leave checksums and segmentation to the far side, and it may leave them to the guest. A frame
    /// is as it goes over a wire otherwise.
    fn takes_offloads(&self) -> bool {
        true
    }

    /// Whether the host's kernel can move its frames itself.
    fn is_the_kernels(&self) -> bool {
        false
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
