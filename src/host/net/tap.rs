//! Taps: virtual interfaces whose other end is a file (Linux Documentation/networking/tuntap.rst).

use super::{Error, link};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const DEVICE: &str = "/dev/net/tun";
/// Size of `virtio_net_hdr_v1`, which goes in front of every frame, in bytes.
static HEADER_BYTES: libc::c_int = 12;

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
        let request = link::request("", flag);
        // SAFETY: TUNSETQUEUE reads the flags of an ifreq.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETQUEUE, &raw const request) })
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A tap with the queues that this process has opened. One that it made goes away with the last of them.
#[derive(Debug)]
pub struct Tap {
    name: String,
    queues: Vec<Arc<TapQueue>>,
}

impl Tap {
    /// Makes a tap. `%d` in the name becomes the first free number.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN or a kernel with taps.
    pub fn create(name: &str, queues: usize) -> Result<Self, Error> {
        let multi_queue = queues > 1;
        let (first, name) = queue(name, multi_queue)?.map_err(|source| match errno(&source) {
            libc::EPERM => Error::Capability {
                to: "make a network interface",
            },
            _ => Error::Tap {
                name: name.into(),
                source,
            },
        })?;
        Self::with_first(first, name, queues)
    }

    /// Opens an interface that exists.
    ///
    /// # Errors
    /// When there is none, it is no tap, it is another user's or in use, or it cannot have this many queues.
    pub fn open(name: &str, queues: usize) -> Result<Self, Error> {
        if !link::exists(name) {
            // The kernel would make it, which is not what was asked for.
            return Err(Error::TapMissing { name: name.into() });
        }
        let multi_queue = queues > 1;
        let result = match queue(name, multi_queue)? {
            // A tap has several queues or one from when it is made, and the kernel says EINVAL, as it does
            // for what is not a tap, unless it is opened as what it is.
            Err(error) if errno(&error) == libc::EINVAL => {
                match (multi_queue, queue(name, !multi_queue)?) {
                    (true, Ok(_)) => {
                        return Err(Error::TapSingleQueue {
                            name: name.into(),
                            queues,
                        });
                    }
                    (_, other) => other,
                }
            }
            other => other,
        };
        let (first, name) = result.map_err(|source| {
            let name = name.into();
            match errno(&source) {
                libc::EINVAL => Error::NotATap { name },
                libc::EBUSY => Error::TapBusy { name },
                libc::EPERM => Error::TapForbidden { name },
                _ => Error::Tap { name, source },
            }
        })?;
        Self::with_first(first, name, queues)
    }

    fn with_first(first: TapQueue, name: String, count: usize) -> Result<Self, Error> {
        let mut queues = vec![Arc::new(first)];
        while queues.len() < count {
            let (next, _) = queue(&name, true)?.map_err(|source| Error::Tap {
                name: name.clone(),
                source,
            })?;
            // The guest asks for more than one when it wants them.
            next.attach(false).map_err(|source| Error::Tap {
                name: name.clone(),
                source,
            })?;
            queues.push(Arc::new(next));
        }
        Ok(Self { name, queues })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The queues; all but the first are detached.
    pub fn queues(&self) -> &[Arc<TapQueue>] {
        &self.queues
    }
}

/// Opens one queue of the named tap, and returns its name as the kernel has it.
fn queue(name: &str, multi_queue: bool) -> Result<io::Result<(TapQueue, String)>, Error> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE)
        .map_err(|source| Error::Tun { source })?;
    Ok(attach_file(file, name, multi_queue))
}

fn attach_file(file: File, name: &str, multi_queue: bool) -> io::Result<(TapQueue, String)> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let mut request = link::request(name, flags);
    let fd = file.as_raw_fd();
    // SAFETY: TUNSETIFF reads and writes an ifreq.
    check(unsafe { libc::ioctl(fd, libc::TUNSETIFF, &raw mut request) })?;
    // SAFETY: TUNSETVNETHDRSZ reads an int.
    check(unsafe { libc::ioctl(fd, libc::TUNSETVNETHDRSZ, &raw const HEADER_BYTES) })?;
    let queue = TapQueue {
        file,
        detachable: multi_queue,
        attached: AtomicBool::new(true),
    };
    Ok((queue, link::name_of(&request)))
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

pub(super) fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
