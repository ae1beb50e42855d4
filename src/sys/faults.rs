//! Page faults of this process that another one answers (userfaultfd(2)): those of its threads, of system calls and of KVM's
//! guests.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// linux/userfaultfd.h: `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// The same: `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    bytes: u64,
    mode: u64,
    ioctls: u64,
}

const UFFD_API: u64 = 0xaa;
const UFFDIO_API: u32 = 0xc018_aa3f;
/// A call for lists of system calls.
pub const UFFDIO_REGISTER: u32 = 0xc020_aa00;
const UFFDIO_UNREGISTER: u32 = 0x8010_aa01;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;
const USERFAULTFD_IOC_NEW: u32 = 0xaa00;
/// Since Linux 4.11; a kernel that does not know large pages of the pool says so then, and not when one is missing.
const UFFD_FEATURE_MISSING_HUGETLBFS: u64 = 1 << 4;
/// Whose memory is given to the host, all at once, is told before that is done.
const UFFD_FEATURE_EVENT_REMOVE: u64 = 1 << 3;

/// The faults of the process that has made it.
#[derive(Debug)]
pub struct Faults(OwnedFd);

impl Faults {
    /// Of the memory that this process has and will have. Whoever answers hears of memory that is given back, if `removals` says
    /// so, and has to read that before the thread that gives it back goes on.
    ///
    /// # Errors
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) when this user may have nobody answer faults in the kernel, as those
    /// of KVM are.
    pub fn new(removals: bool, large: bool) -> io::Result<Self> {
        let faults = open()?;
        let of = |wanted: bool, feature: u64| if wanted { feature } else { 0 };
        let features =
            of(removals, UFFD_FEATURE_EVENT_REMOVE) | of(large, UFFD_FEATURE_MISSING_HUGETLBFS);
        agree(&faults, features)?;
        Ok(Self(faults))
    }

    /// Has each access to a page in the range that is not there wait until somebody has put it there.
    ///
    /// # Errors
    /// When the kernel cannot, of such memory.
    pub fn register(&self, range: Range<u64>) -> io::Result<()> {
        register(&self.0, range, UFFDIO_REGISTER_MODE_MISSING)
    }
}

impl AsFd for Faults {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Faults {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Faults {
    /// Has nothing in the range wait any more, also where it is another process's: what is not there is zeros from then on. So that
    /// process must not be running.
    ///
    /// # Errors
    /// When that process has no such memory any more.
    pub fn let_go(&self, range: Range<u64>) -> io::Result<()> {
        let mut range = [range.start, range.end - range.start];
        let fd = self.0.as_raw_fd();
        // SAFETY: the kernel reads a structure of two numbers.
        check(unsafe { libc::ioctl(fd, UFFDIO_UNREGISTER as _, range.as_mut_ptr()) })
    }
}

/// By the call.
pub(crate) fn by_call(flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: a number.
    take(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })
}

/// Says what it is for, which comes first.
pub(crate) fn agree(faults: &OwnedFd, features: u64) -> io::Result<()> {
    let mut api = Api {
        api: UFFD_API,
        features,
        ioctls: 0,
    };
    // SAFETY: the kernel reads and writes a structure of that size.
    check(unsafe { libc::ioctl(faults.as_raw_fd(), UFFDIO_API as _, &raw mut api) })
}

/// Has it see to a range from now on. What memory has in it stays as it is.
pub(crate) fn register(faults: &OwnedFd, range: Range<u64>, mode: u64) -> io::Result<()> {
    let mut register = Register {
        start: range.start,
        bytes: range.end - range.start,
        mode,
        ioctls: 0,
    };
    let fd = faults.as_raw_fd();
    // SAFETY: the kernel reads and writes a structure of that size.
    check(unsafe { libc::ioctl(fd, UFFDIO_REGISTER as _, &raw mut register) })
}

/// By the call, or by the device, whose file says who may.
fn open() -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let called = by_call(flags);
    let Err(refused) = called else {
        return called;
    };
    if refused.kind() != io::ErrorKind::PermissionDenied {
        return Err(refused);
    }
    // Linux 6.1.
    let Ok(device) = File::options()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd")
    else {
        return Err(refused);
    };
    // SAFETY: a number.
    take(unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW as _, flags) }.into())
}

fn take(fd: libc::c_long) -> io::Result<OwnedFd> {
    match fd {
        // SAFETY: it was just made, and nobody else knows it.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{Slot, Until, one};
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    use rustix::process::{Uid, geteuid};
    use rustix::thread::set_thread_uid;
    use std::thread::spawn;

    #[test]
    fn who_touches_a_page_waits_until_it_is_there_or_let_go() {
        let faults = match Faults::new(false, false) {
            Ok(faults) => faults,
            Err(error) => return println!("SKIPPED: not for this user: {error}"),
        };
        let bytes = 2 * 4096;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping.
        let memory = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, flags) };
        let start = memory.unwrap() as u64;
        faults.register(start..start + bytes as u64).unwrap();
        // SAFETY: part of the mapping, which stays.
        let touch = move |page: u64| unsafe { *((start + page * 4096) as *const u8) };
        let [first, second] = [0, 1].map(|page| spawn(move || touch(page)));
        assert!(one(Slot::readable(faults.as_fd()), Until::Forever).unwrap());
        assert!(!first.is_finished() && !second.is_finished());
        faults.let_go(start..start + bytes as u64).unwrap();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (0, 0));
    }

    #[test]
    fn who_may_not_have_them_is_told_so() {
        if !geteuid().is_root() {
            return println!("SKIPPED: only root becomes another user");
        }
        let everybody = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
        if everybody.is_ok_and(|text| text.trim() == "1") {
            return println!("SKIPPED: every user may have them here");
        }
        // Of this thread alone.
        let refused = spawn(|| {
            set_thread_uid(Uid::from_raw(65534)).unwrap();
            Faults::new(false, false).unwrap_err().kind()
        });
        assert_eq!(refused.join().unwrap(), io::ErrorKind::PermissionDenied);
    }
}
