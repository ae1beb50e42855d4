//! Pipes, terminals, sockets and memory, and waiting for them.

use core::ffi::CStr;
use core::ptr::{null, null_mut};

use linux_raw_sys::general::*;
use linux_raw_sys::ioctl;
use linux_raw_sys::net::{AF_UNIX, AF_VSOCK, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET};

use super::{Errno, File, Pid, duration_ms, syscall};

/// From linux/vm_sockets.h: the host's address, and the one that means any.
const VMADDR_CID_HOST: u32 = 2;
const VMADDR_CID_ANY: u32 = u32::MAX;
const BACKLOG: u32 = 64;

/// An address of AF_VSOCK or AF_UNIX.
pub struct Address {
    /// struct sockaddr_vm has 16 bytes, struct sockaddr_un 110.
    bytes: [u8; 110],
    length: u32,
}

impl Address {
    fn vsock(cid: u32, port: u32) -> Self {
        let mut bytes = [0; 110];
        bytes[..2].copy_from_slice(&(AF_VSOCK as u16).to_ne_bytes());
        bytes[4..8].copy_from_slice(&port.to_ne_bytes());
        bytes[8..12].copy_from_slice(&cid.to_ne_bytes());
        Self { bytes, length: 16 }
    }

    /// A port of the host.
    pub fn host(port: u32) -> Self {
        Self::vsock(VMADDR_CID_HOST, port)
    }

    /// A port of this guest.
    pub fn own(port: u32) -> Self {
        Self::vsock(VMADDR_CID_ANY, port)
    }

    /// A Unix socket.
    pub fn unix(path: &[u8]) -> Result<Self, Errno> {
        let mut bytes = [0; 110];
        bytes[..2].copy_from_slice(&(AF_UNIX as u16).to_ne_bytes());
        // The last byte stays zero.
        let space = bytes[2..109].get_mut(..path.len());
        space.ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(path);
        let length = path.len() as u32 + 3;
        Ok(Self { bytes, length })
    }

    fn family(&self) -> u32 {
        u16::from_ne_bytes([self.bytes[0], self.bytes[1]]).into()
    }
}

impl File {
    fn socket(address: &Address) -> Result<Self, Errno> {
        let kind = SOCK_STREAM | O_CLOEXEC | O_NONBLOCK;
        // SAFETY: no pointers.
        let fd = unsafe { call!(__NR_socket, address.family(), kind, 0) }?;
        Ok(Self(fd as i32))
    }

    /// Begins to connect; the socket can be written to when that is done. It does not block.
    pub fn connect(address: &Address) -> Result<Self, Errno> {
        let socket = Self::socket(address)?;
        let (bytes, length) = (address.bytes.as_ptr(), address.length);
        // SAFETY: the kernel reads `length` bytes, which the array has.
        match unsafe { call!(__NR_connect, socket.0, bytes, length) } {
            Ok(_) | Err(Errno::EINPROGRESS) => Ok(socket),
            Err(error) => Err(error),
        }
    }

    /// Listens. It does not block.
    pub fn listen(address: &Address) -> Result<Self, Errno> {
        let socket = Self::socket(address)?;
        let (bytes, length) = (address.bytes.as_ptr(), address.length);
        // SAFETY: the kernel reads `length` bytes, which the array has.
        unsafe { call!(__NR_bind, socket.0, bytes, length) }?;
        // SAFETY: no pointers.
        unsafe { call!(__NR_listen, socket.0, BACKLOG) }?;
        Ok(socket)
    }

    /// Takes the next connection, and says whether it comes from the host: from its address or, with a Unix socket, from
    /// outside of this PID namespace. It does not block.
    pub fn accept(&self) -> Result<(Self, bool), Errno> {
        let mut peer = [0u8; 110];
        let mut length = peer.len() as u32;
        let (fd, flags) = (self.0, O_CLOEXEC | O_NONBLOCK);
        // SAFETY: the kernel writes no more than `length` bytes, and how many there are.
        let fd = unsafe { call!(__NR_accept4, fd, peer.as_mut_ptr(), &raw mut length, flags) }?;
        let socket = Self(fd as i32);
        let from_host = match u16::from_ne_bytes([peer[0], peer[1]]).into() {
            AF_VSOCK => peer[8..12] == VMADDR_CID_HOST.to_ne_bytes(),
            AF_UNIX => socket.peer_process() == Ok(0),
            _ => false,
        };
        Ok((socket, from_host))
    }

    /// The number of the process at the other end of a Unix socket; 0 if it has none here.
    fn peer_process(&self) -> Result<Pid, Errno> {
        // struct ucred: process, user, group.
        let mut credentials = [-1i32; 3];
        let mut length = size_of_val(&credentials) as u32;
        let (out, length) = (credentials.as_mut_ptr(), &raw mut length);
        // SAFETY: the kernel writes one struct ucred, and its length.
        unsafe {
            call!(
                __NR_getsockopt,
                self.0,
                SOL_SOCKET,
                SO_PEERCRED,
                out,
                length
            )
        }?;
        Ok(credentials[0])
    }

    /// A pipe: the end to read from, the end to write to.
    pub fn pipe() -> Result<(Self, Self), Errno> {
        let mut ends = [0i32; 2];
        // SAFETY: the kernel writes two numbers.
        unsafe { call!(__NR_pipe2, ends.as_mut_ptr(), O_CLOEXEC) }?;
        Ok((Self(ends[0]), Self(ends[1])))
    }

    /// A terminal: the end of whoever is behind it, and the end of the programs in it.
    pub fn terminal() -> Result<(Self, Self), Errno> {
        // The instance that is mounted; /dev/ptmx may be a file of the image.
        let master = Self::open(c"/dev/pts/ptmx", O_RDWR | O_NOCTTY)?;
        let unlocked = 0i32;
        // SAFETY: the kernel reads one number.
        unsafe { call!(__NR_ioctl, master.0, ioctl::TIOCSPTLCK, &raw const unlocked) }?;
        let flags = O_RDWR | O_NOCTTY | O_CLOEXEC;
        // SAFETY: no pointers.
        let slave = unsafe { call!(__NR_ioctl, master.0, ioctl::TIOCGPTPEER, flags) }?;
        Ok((master, Self(slave as i32)))
    }

    /// Lets reading and writing fail where they would block.
    pub fn do_not_block(&self) -> Result<(), Errno> {
        // SAFETY: no pointers.
        unsafe { call!(__NR_fcntl, self.0, F_SETFL, O_NONBLOCK) }.map(drop)
    }

    /// How many bytes could be read at once.
    pub fn readable(&self) -> u32 {
        let mut count = 0u32;
        // SAFETY: the kernel writes one number.
        let _ = unsafe { call!(__NR_ioctl, self.0, ioctl::FIONREAD, &raw mut count) };
        count
    }

    /// A descriptor from which the signals in `mask` are read, one struct signalfd_siginfo each.
    pub fn signals(mask: u64) -> Result<Self, Errno> {
        let flags = O_CLOEXEC | O_NONBLOCK;
        // SAFETY: the kernel reads one 8-byte signal set.
        let fd = unsafe { call!(__NR_signalfd4, -1isize, &raw const mask, 8, flags) }?;
        Ok(Self(fd as i32))
    }

    /// The next signal of [`Self::signals`].
    pub fn next_signal(&self) -> Option<i32> {
        let mut info = [0u8; 128];
        match self.read(&mut info) {
            Ok(128) => Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])),
            _ => None,
        }
    }
}

/// Waits until one of the descriptors is ready, or the time is up.
pub fn poll(set: &mut [pollfd], timeout_ms: Option<u64>) -> Result<usize, Errno> {
    let time = timeout_ms.map(duration_ms);
    let time = time.as_ref().map_or(null(), core::ptr::from_ref);
    // SAFETY: the kernel writes to the set only; a null pointer asks for no time limit, and for no signal mask.
    unsafe {
        call!(
            __NR_ppoll,
            set.as_mut_ptr(),
            set.len(),
            time,
            null::<u64>(),
            8
        )
    }
}

/// Zeroed memory of the kernel's, given back when dropped.
pub struct Memory {
    start: *mut u8,
    length: usize,
}

impl Memory {
    /// As many bytes, which cost something only when they are touched.
    pub fn new(length: usize) -> Result<Self, Errno> {
        let length = length.max(1);
        let (protection, flags) = (PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
        // SAFETY: a new mapping, where the kernel likes.
        let start = unsafe {
            call!(
                __NR_mmap,
                null_mut::<u8>(),
                length,
                protection,
                flags,
                -1isize
            )
        }?;
        Ok(Self {
            start: start as *mut u8,
            length,
        })
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: it is mapped, and nobody else's.
        unsafe { core::slice::from_raw_parts(self.start, self.length) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: it is mapped, and nobody else's.
        unsafe { core::slice::from_raw_parts_mut(self.start, self.length) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nobody refers to it any more.
        let _ = unsafe { call!(__NR_munmap, self.start, self.length) };
    }
}

/// Gives back the pages that lie in the area as a whole; they are zero then.
///
/// # Safety
///
/// Nobody relies on what is there.
pub unsafe fn discard(start: usize, end: usize) {
    let (start, end) = (start.next_multiple_of(4096), end & !4095);
    if start < end {
        // SAFETY: as the caller says.
        let _ = unsafe { call!(__NR_madvise, start, end - start, MADV_DONTNEED) };
    }
}

/// Adds to the kernel's random numbers, all bits of which count, and has them used at once.
pub fn add_entropy(bytes: &[u8]) -> Result<(), Errno> {
    let random = File::open(c"/dev/urandom", O_WRONLY)?;
    // struct rand_pool_info: how many bits and how many bytes there are, and the bytes.
    let mut info = [0u8; 8 + 64];
    let length = bytes.len().min(64);
    info[..4].copy_from_slice(&(length as u32 * 8).to_ne_bytes());
    info[4..8].copy_from_slice(&(length as u32).to_ne_bytes());
    info[8..8 + length].copy_from_slice(&bytes[..length]);
    // SAFETY: the kernel reads what the second number says, which is there.
    unsafe { call!(__NR_ioctl, random.0, ioctl::RNDADDENTROPY, info.as_ptr()) }?;
    // SAFETY: no pointers. Older kernels do not know it.
    let _ = unsafe { call!(__NR_ioctl, random.0, ioctl::RNDRESEEDCRNG, 0) };
    Ok(())
}

/// Random numbers of the kernel's.
pub fn random<const BYTES: usize>() -> Result<[u8; BYTES], Errno> {
    let mut bytes = [0; BYTES];
    // SAFETY: the kernel writes no further than `BYTES`. So few come at once.
    let count = unsafe { call!(__NR_getrandom, bytes.as_mut_ptr(), BYTES, 0) }?;
    match count == BYTES {
        true => Ok(bytes),
        false => Err(Errno::EINTR),
    }
}

/// Removes a file.
pub fn unlink(path: &CStr) -> Result<(), Errno> {
    // SAFETY: `path` ends with NUL.
    unsafe { call!(__NR_unlink, path.as_ptr()) }.map(drop)
}
