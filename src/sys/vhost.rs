//! Queues of network interfaces that the host's kernel serves itself (linux/vhost.h, drivers/vhost/net.c).
//!
//! It reads and writes the memory of the process that is its owner, by that process's own addresses, with a thread of its
//! own, which is in the owner's cgroups.

use super::event::Event;
use super::tap::check;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

/// The device that it is asked for by.
pub const DEVICE: &str = "/dev/vhost-net";

// linux/vhost.h: the calls by their numbers.
/// VHOST_GET_FEATURES.
pub const GET_FEATURES: u32 = 0x8008_af00;
/// VHOST_SET_FEATURES.
pub const SET_FEATURES: u32 = 0x4008_af00;
/// VHOST_SET_OWNER.
pub const SET_OWNER: u32 = 0xaf01;
/// VHOST_SET_MEM_TABLE.
pub const SET_MEM_TABLE: u32 = 0x4008_af03;
/// VHOST_SET_VRING_NUM.
pub const SET_VRING_NUM: u32 = 0x4008_af10;
/// VHOST_SET_VRING_ADDR.
pub const SET_VRING_ADDR: u32 = 0x4028_af11;
/// VHOST_SET_VRING_BASE.
pub const SET_VRING_BASE: u32 = 0x4008_af12;
/// VHOST_GET_VRING_BASE.
pub const GET_VRING_BASE: u32 = 0xc008_af12;
/// VHOST_SET_VRING_KICK.
pub const SET_VRING_KICK: u32 = 0x4008_af20;
/// VHOST_SET_VRING_CALL.
pub const SET_VRING_CALL: u32 = 0x4008_af21;
/// VHOST_SET_VRING_ERR.
pub const SET_VRING_ERR: u32 = 0x4008_af22;
/// VHOST_NET_SET_BACKEND.
pub const NET_SET_BACKEND: u32 = 0x4008_af30;

/// A range of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Region {
    /// The guest physical address of its first byte.
    pub guest: u64,
    /// Its size.
    pub bytes: u64,
    /// Where it is in this process.
    pub host: u64,
    /// None are defined.
    pub flags: u64,
}

/// A queue in this process's memory, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Entries.
    pub size: u16,
    /// The index of the request that comes next.
    pub next_avail: u16,
    /// The descriptor table.
    pub descriptors: u64,
    /// The available ring.
    pub driver: u64,
    /// The used ring.
    pub device: u64,
}

/// What an event of a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The driver has made requests available.
    Kick,
    /// The driver is to be interrupted.
    Call,
    /// The kernel cannot make sense of the queue.
    Error,
}

/// Whoever serves a pair of queues instead of this process: the kernel, or what stands for it in tests.
pub trait Vhost: Send + Sync {
    /// Has it know the memory, and what driver and device have agreed on. It serves no queue.
    ///
    /// # Errors
    /// What the kernel says.
    ///
    /// # Safety
    /// The memory stays mapped for as long as any queue is [served](Self::begin).
    unsafe fn prepare(&self, features: u64, regions: &[Region]) -> io::Result<()>;

    /// Has it know a queue, which it does not serve.
    ///
    /// # Errors
    /// What the kernel says.
    ///
    /// # Safety
    /// As of [`prepare`](Self::prepare); and who else writes to the queue is no thread of Rust's.
    unsafe fn set_ring(&self, queue: u32, ring: &Ring) -> io::Result<()>;

    /// Has it know an event of a queue's.
    ///
    /// # Errors
    /// What the kernel says.
    fn set_event(&self, queue: u32, purpose: Purpose, event: &Event) -> io::Result<()>;

    /// Has it serve a queue, whose frames go to and come from that port.
    ///
    /// # Errors
    /// What the kernel says.
    fn begin(&self, queue: u32, port: BorrowedFd<'_>) -> io::Result<()>;

    /// Ends that: nothing of the queue is in flight when this returns, and nothing of memory changes by it. The index of the
    /// request that comes next.
    ///
    /// # Errors
    /// What the kernel says.
    fn end(&self, queue: u32) -> io::Result<u16>;
}

/// The kernel, for one pair of queues: 0 is towards the guest, 1 from it.
#[derive(Debug)]
pub struct VhostNet {
    file: File,
    /// It has an owner.
    owned: Mutex<bool>,
}

/// `struct vhost_vring_state`.
#[repr(C)]
struct State {
    queue: u32,
    number: u32,
}

/// `struct vhost_vring_file`.
#[repr(C)]
struct Descriptor {
    queue: u32,
    fd: libc::c_int,
}

/// `struct vhost_vring_addr`.
#[repr(C)]
struct Addresses {
    queue: u32,
    flags: u32,
    descriptors: u64,
    device: u64,
    driver: u64,
    log: u64,
}

impl VhostNet {
    /// Opens one that has no owner.
    ///
    /// # Errors
    /// Without the module `vhost_net`, or the right to open its device.
    pub fn open() -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true);
        let file = options.custom_flags(libc::O_CLOEXEC).open(DEVICE)?;
        let owned = Mutex::new(false);
        Ok(Self { file, owned })
    }

    /// What it can, as feature bits.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn features(&self) -> io::Result<u64> {
        let mut features = 0_u64;
        // SAFETY: it writes 64 bits.
        unsafe { self.call(GET_FEATURES, &raw mut features) }?;
        Ok(features)
    }

    /// # Safety
    /// The call reads and writes no more than what `argument` points to.
    unsafe fn call<T>(&self, number: u32, argument: *mut T) -> io::Result<()> {
        // SAFETY: the caller's word.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), number as _, argument) };
        check(result)
    }

    /// This process becomes the owner, if it is not already. The kernel's thread joins the cgroups that the caller is in.
    fn own(&self) -> io::Result<()> {
        let mut owned = super::thread::lock(&self.owned);
        if !*owned {
            // SAFETY: it takes nothing.
            unsafe { self.call(SET_OWNER, std::ptr::null_mut::<u8>()) }?;
            *owned = true;
        }
        Ok(())
    }

    fn set_number(&self, call: u32, queue: u32, number: u16) -> io::Result<()> {
        let number = number.into();
        let mut state = State { queue, number };
        // SAFETY: it reads the structure.
        unsafe { self.call(call, &raw mut state) }
    }

    fn set_descriptor(&self, call: u32, queue: u32, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fd = fd.map_or(-1, |fd| fd.as_raw_fd());
        let mut descriptor = Descriptor { queue, fd };
        // SAFETY: it reads the structure.
        unsafe { self.call(call, &raw mut descriptor) }
    }
}

impl Vhost for VhostNet {
    unsafe fn prepare(&self, mut features: u64, regions: &[Region]) -> io::Result<()> {
        self.own()?;
        // SAFETY: it reads 64 bits.
        unsafe { self.call(SET_FEATURES, &raw mut features) }?;
        // `struct vhost_memory`: how many there are, in 32 bits, and 32 bits of nothing.
        let mut table = vec![regions.len() as u64];
        let words = |it: &Region| [it.guest, it.bytes, it.host, it.flags];
        table.extend(regions.iter().flat_map(words));
        // SAFETY: it reads as many regions as there are; the caller's word is that they stay mapped.
        unsafe { self.call(SET_MEM_TABLE, table.as_mut_ptr()) }
    }

    unsafe fn set_ring(&self, queue: u32, ring: &Ring) -> io::Result<()> {
        self.set_number(SET_VRING_NUM, queue, ring.size)?;
        self.set_number(SET_VRING_BASE, queue, ring.next_avail)?;
        let mut addresses = Addresses {
            queue,
            flags: 0,
            descriptors: ring.descriptors,
            device: ring.device,
            driver: ring.driver,
            log: 0,
        };
        // SAFETY: it reads the structure; the caller's word is that the queue stays mapped.
        unsafe { self.call(SET_VRING_ADDR, &raw mut addresses) }
    }

    fn set_event(&self, queue: u32, purpose: Purpose, event: &Event) -> io::Result<()> {
        let call = match purpose {
            Purpose::Kick => SET_VRING_KICK,
            Purpose::Call => SET_VRING_CALL,
            Purpose::Error => SET_VRING_ERR,
        };
        self.set_descriptor(call, queue, Some(event.as_fd()))
    }

    fn begin(&self, queue: u32, port: BorrowedFd<'_>) -> io::Result<()> {
        self.set_descriptor(NET_SET_BACKEND, queue, Some(port))
    }

    fn end(&self, queue: u32) -> io::Result<u16> {
        self.set_descriptor(NET_SET_BACKEND, queue, None)?;
        let mut state = State { queue, number: 0 };
        // SAFETY: it reads and writes the structure.
        unsafe { self.call(GET_VRING_BASE, &raw mut state) }?;
        Ok(state.number as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// linux/ioctl.h: direction, size, type and number.
    #[test]
    fn calls_have_the_numbers_of_their_structures() {
        const READ: u32 = 2;
        const WRITE: u32 = 1;
        let number = |direction: u32, number: u32, bytes: usize| {
            direction << 30 | (bytes as u32) << 16 | 0xaf << 8 | number
        };
        let state = size_of::<State>();
        let descriptor = size_of::<Descriptor>();
        assert_eq!(number(READ, 0, 8), GET_FEATURES);
        assert_eq!(number(WRITE, 0, 8), SET_FEATURES);
        assert_eq!(number(0, 1, 0), SET_OWNER);
        assert_eq!(number(WRITE, 3, 8), SET_MEM_TABLE);
        assert_eq!(number(WRITE, 0x10, state), SET_VRING_NUM);
        assert_eq!(number(WRITE, 0x11, size_of::<Addresses>()), SET_VRING_ADDR);
        assert_eq!(number(WRITE, 0x12, state), SET_VRING_BASE);
        assert_eq!(number(READ | WRITE, 0x12, state), GET_VRING_BASE);
        assert_eq!(number(WRITE, 0x20, descriptor), SET_VRING_KICK);
        assert_eq!(number(WRITE, 0x21, descriptor), SET_VRING_CALL);
        assert_eq!(number(WRITE, 0x22, descriptor), SET_VRING_ERR);
        assert_eq!(number(WRITE, 0x30, descriptor), NET_SET_BACKEND);
    }
}
