//! Queues of taps: virtual interfaces whose other end is a file (Linux Documentation/networking/tuntap.rst).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

const DEVICE: &str = "/dev/net/tun";
/// Size of `virtio_net_hdr_v1`, which goes in front of every frame, in bytes.
static HEADER_BYTES: libc::c_int = 12;

/// The file that queues of taps are opened by, which belongs to none yet.
#[derive(Debug)]
pub struct Unattached(File);

impl Unattached {
    /// Opens one.
    ///
    /// # Errors
    /// Without a kernel with taps, or the right to open its device.
    pub fn open() -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true);
        let file = options.custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
        Ok(Self(file))
    }

    /// Makes it a queue of the named tap, and tells the name as the kernel has it: `%d` becomes the first free number. A tap
    /// that is not there is made.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attach(self, name: &str, multi_queue: bool) -> io::Result<(TapQueue, String)> {
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if multi_queue {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let mut request = request(name, flags);
        let fd = self.0.as_raw_fd();
        // SAFETY: TUNSETIFF reads and writes an ifreq.
        check(unsafe { libc::ioctl(fd, libc::TUNSETIFF, &raw mut request) })?;
        // SAFETY: TUNSETVNETHDRSZ reads an int.
        check(unsafe { libc::ioctl(fd, libc::TUNSETVNETHDRSZ, &raw const HEADER_BYTES) })?;
        let queue = TapQueue {
            file: self.0,
            detachable: multi_queue,
            attached: AtomicBool::new(true),
        };
        Ok((queue, name_of(&request)))
    }
}

/// One queue of a tap. Reading and writing it moves frames with a virtio header; it never blocks.
#[derive(Debug)]
pub struct TapQueue {
    file: File,
    /// A tap of a single queue cannot let go of it.
    detachable: bool,
    attached: AtomicBool,
}

impl TapQueue {
    /// Says what frames may leave to their reader, as `TUN_F_*` bits. It holds for all queues of the tap.
    ///
    /// # Errors
    /// When the kernel does not know a bit.
    pub fn set_offloads(&self, bits: libc::c_uint) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes a number.
        check(unsafe {
            libc::ioctl(
                self.file.as_raw_fd(),
                libc::TUNSETOFFLOAD,
                libc::c_ulong::from(bits),
            )
        })
    }

    /// Joins the queues that get frames, or leaves them. The only queue of a tap stays.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attach(&self, attached: bool) -> io::Result<()> {
        if !self.detachable || self.attached.swap(attached, Ordering::AcqRel) == attached {
            return Ok(());
        }
        let flag = match attached {
            true => libc::IFF_ATTACH_QUEUE,
            false => libc::IFF_DETACH_QUEUE,
        };
        let request = request("", flag);
        // SAFETY: TUNSETQUEUE reads the flags of an ifreq.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETQUEUE, &raw const request) })
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// An ifreq for the named interface, with flags. The name has at most 15 bytes.
pub fn request(name: &str, flags: libc::c_int) -> libc::ifreq {
    // SAFETY: an ifreq is plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let most = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..most].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    request
}

/// The name in an ifreq, as the kernel has filled it in.
pub fn name_of(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.iter().map(|byte| *byte as u8);
    let name: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&name).into_owned()
}

/// What a call by number says.
///
/// # Errors
/// The calling thread's `errno`.
pub fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
