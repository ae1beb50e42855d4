//! Queues of taps: virtual interfaces whose other end is a file (Linux Documentation/networking/tuntap.rst).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
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
        self.attach_with(0, name, multi_queue)
    }

    /// The same, but where there is an interface of this name the kernel says EBUSY.
    ///
    /// # Errors
    /// As of [`attach`](Self::attach).
    pub fn make(self, name: &str, multi_queue: bool) -> io::Result<(TapQueue, String)> {
        self.attach_with(libc::IFF_TUN_EXCL, name, multi_queue)
    }

    fn attach_with(
        self,
        flags: libc::c_int,
        name: &str,
        multi_queue: bool,
    ) -> io::Result<(TapQueue, String)> {
        let mut flags = flags | libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
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
    /// Takes one that somebody else has opened, with the name of its tap, as it is in the tap's network namespace. `None` if its
    /// frames do not begin with a header, or with something else as well.
    ///
    /// # Errors
    /// What the kernel says, as of what is no queue of a tap.
    pub fn given(queue: OwnedFd) -> io::Result<Option<(Self, String)>> {
        let mut request = request("", 0);
        let fd = queue.as_raw_fd();
        // SAFETY: TUNGETIFF writes an ifreq.
        check(unsafe { libc::ioctl(fd, libc::TUNGETIFF, &raw mut request) })?;
        // SAFETY: the flags are what the kernel has filled in.
        let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        let form = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if flags & form != form {
            return Ok(None);
        }
        rustix::io::ioctl_fionbio(&queue, true)?;
        // SAFETY: TUNSETVNETHDRSZ reads an int.
        check(unsafe { libc::ioctl(fd, libc::TUNSETVNETHDRSZ, &raw const HEADER_BYTES) })?;
        let queue = Self {
            file: queue.into(),
            detachable: flags & libc::IFF_MULTI_QUEUE != 0,
            attached: AtomicBool::new(true),
        };
        Ok(Some((queue, name_of(&request))))
    }

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

    /// Has the tap stay when none of its queues is open any more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn outlast(&self) -> io::Result<()> {
        // SAFETY: TUNSETPERSIST takes a number.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETPERSIST, 1) })
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

    /// Has the tap take no frames towards its readers but those of IPv4 that go to this hardware address alone, and answers
    /// about others' (ARP) that do; all of them if there is none. It holds for all queues of the tap, and not for what is in
    /// them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take_only_for(&self, mac: Option<[u8; 6]>) -> io::Result<()> {
        let mut filter = mac.map(only_for).unwrap_or_default();
        let program = libc::sock_fprog {
            len: filter.len() as libc::c_ushort,
            filter: filter.as_mut_ptr(),
        };
        let number = match mac {
            Some(_) => libc::TUNATTACHFILTER,
            None => libc::TUNDETACHFILTER,
        };
        // SAFETY: the first reads a sock_fprog with as many instructions as it says, the second nothing.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), number, &raw const program) })
    }
}

/// A program of the classic packet filter (Linux Documentation/networking/filter.rst), over a frame from its first byte on.
fn only_for([a, b, c, d, e, f]: [u8; 6]) -> Vec<libc::sock_filter> {
    const WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let steps = [
        (WORD, 0, 0, 0),
        (IS, u32::from_be_bytes([a, b, c, d]), 0, 8),
        (HALF, 4, 0, 0),
        (IS, u32::from_be_bytes([0, 0, e, f]), 0, 6),
        (HALF, 12, 0, 0),
        (IS, libc::ETH_P_IP as u32, 3, 0),
        (IS, libc::ETH_P_ARP as u32, 0, 3),
        // What an ARP packet is: 2 is an answer.
        (HALF, 20, 0, 0),
        (IS, 2, 0, 1),
        (RETURN, u32::MAX, 0, 0),
        (RETURN, 0, 0, 0),
    ];
    let step = |(code, k, jt, jf)| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    steps.map(step).to_vec()
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
