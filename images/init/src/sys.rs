//! The system calls that init makes, x86-64 only.

use alloc::ffi::CString;
use alloc::format;
use core::arch::asm;
use core::ffi::CStr;

use kvmlet_contract::ConsoleSize;
use linux_raw_sys::general::*;
use linux_raw_sys::ioctl;

use clock::duration_ms;
pub use clock::{clock_ns, monotonic_ms, set_clock, sleep_ms};
pub use errno::Errno;
pub use io::*;
pub use linux_raw_sys::general::{O_DIRECTORY, O_NOCTTY, O_RDONLY, O_RDWR, O_WRONLY};
pub use process::*;

mod errno;

/// A process id.
pub type Pid = i32;

/// # Safety
///
/// The arguments must be what the call with this number expects; pointers must be valid for it.
unsafe fn syscall(number: u32, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: the caller vouches for the arguments. The kernel changes rax, rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b,
             in("rdx") c, in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _,
             options(nostack));
    }
    match result {
        -4095..=-1 => Err(Errno::from_number(-result as i32)),
        _ => Ok(result as usize),
    }
}

/// Calls the kernel. Fewer arguments than six are filled up with zeros.
macro_rules! call {
    (@six $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr $(, $z:expr)*) => {
        [$a as usize, $b as usize, $c as usize, $d as usize, $e as usize, $f as usize]
    };
    ($number:ident $(, $argument:expr)*) => {
        syscall($number, call!(@six $($argument,)* 0, 0, 0, 0, 0, 0))
    };
}

/// Defines calls that take plain numbers and C strings and return nothing.
macro_rules! plain_calls {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) = $number:ident($($value:expr),*);)*) => {
        $($(#[$doc])*
        pub fn $name($($argument: $kind),*) -> Result<(), Errno> {
            // SAFETY: strings are NUL-terminated and outlive the call; the rest is numbers.
            unsafe { call!($number $(, $value)*) }.map(drop)
        })*
    };
}

mod clock;
mod directory;
mod io;
mod process;
pub mod tree;

/// An open file, closed when dropped.
pub struct File(i32);

impl File {
    /// Opens `path`; a program that is executed does not get it.
    pub fn open(path: &CStr, flags: u32) -> Result<Self, Errno> {
        Self::create(path, flags, 0)
    }

    /// Opens `path`, with the permissions `mode` if O_CREAT is among the `flags`.
    pub fn create(path: &CStr, flags: u32, mode: u32) -> Result<Self, Errno> {
        // SAFETY: `path` ends with NUL.
        let fd = unsafe { call!(__NR_open, path.as_ptr(), flags | O_CLOEXEC, mode) }?;
        Ok(Self(fd as i32))
    }

    /// Opens a netlink socket for `protocol`.
    pub fn netlink(protocol: u32) -> Result<Self, Errno> {
        let (family, kind) = (linux_raw_sys::net::AF_NETLINK, 3 /* SOCK_RAW */ | O_CLOEXEC);
        // SAFETY: no pointers.
        let fd = unsafe { call!(__NR_socket, family, kind, protocol) }?;
        Ok(Self(fd as i32))
    }

    /// Its descriptor.
    pub fn number(&self) -> i32 {
        self.0
    }

    /// Another descriptor of the same.
    pub fn again(&self) -> Result<Self, Errno> {
        // SAFETY: no pointers.
        let fd = unsafe { call!(__NR_fcntl, self.0, F_DUPFD_CLOEXEC, 3) }?;
        Ok(Self(fd as i32))
    }

    /// Leaves it open for good.
    pub fn leak(self) {
        core::mem::forget(self);
    }

    /// Where procfs shows it.
    pub fn proc_path(&self) -> CString {
        CString::new(format!("/proc/self/fd/{}", self.0)).unwrap_or_default()
    }

    /// Reads up to `buffer.len()` bytes.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        read(self.0, buffer)
    }

    /// Writes up to all of `bytes`.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        write(self.0, bytes)
    }

    /// Writes `bytes` at `offset`.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        // SAFETY: the kernel reads no further than `bytes.len()`.
        unsafe { call!(__NR_pwrite64, self.0, bytes.as_ptr(), bytes.len(), offset) }
    }

    /// Loads the module that it is.
    pub fn load_module(&self) -> Result<(), Errno> {
        // SAFETY: the parameters are a string that ends with NUL.
        unsafe { call!(__NR_finit_module, self.0, c"".as_ptr(), 0) }.map(drop)
    }

    /// Whether it is a plain file.
    pub fn is_regular(&self) -> bool {
        status(self.0, c"", AT_EMPTY_PATH)
            .is_ok_and(|it| u32::from(it.stx_mode) & S_IFMT == S_IFREG)
    }

    /// The kernel's number of the network interface `name`, asked for through any socket.
    pub fn interface_index(&self, name: &str) -> Result<u32, Errno> {
        // struct ifreq: the name, NUL-terminated, and a union that starts with the index.
        #[repr(C, align(8))]
        struct Request([u8; 40]);
        let mut request = Request([0; 40]);
        let length = name.len().min(15);
        request.0[..length].copy_from_slice(&name.as_bytes()[..length]);
        // SAFETY: the kernel writes to the request, whose size is that of struct ifreq.
        unsafe { call!(__NR_ioctl, self.0, ioctl::SIOCGIFINDEX, &raw mut request) }?;
        let [a, b, c, d] = [16, 17, 18, 19].map(|i: usize| request.0[i]);
        Ok(u32::from_ne_bytes([a, b, c, d]))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: no pointers; nobody else has this descriptor.
        let _ = unsafe { call!(__NR_close, self.0) };
    }
}

/// Reads from an open descriptor.
pub fn read(fd: i32, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes no further than `buffer.len()`.
    unsafe { call!(__NR_read, fd, buffer.as_mut_ptr(), buffer.len()) }
}

/// Writes to an open descriptor.
pub fn write(fd: i32, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel reads no further than `bytes.len()`.
    unsafe { call!(__NR_write, fd, bytes.as_ptr(), bytes.len()) }
}

plain_calls! {
    /// Changes the working directory.
    chdir(path: &CStr) = __NR_chdir(path.as_ptr());
    /// Changes the root directory.
    chroot(path: &CStr) = __NR_chroot(path.as_ptr());
    /// Makes `to` refer to what `from` refers to; a program that is executed gets it.
    dup3(from: i32, to: i32) = __NR_dup3(from, to, 0);
    /// Gives the open file to a user.
    fchown(fd: i32, uid: u32) = __NR_fchown(fd, uid, u32::MAX);
    /// Whether the descriptor is one.
    check_open(fd: i32) = __NR_fcntl(fd, F_GETFD);
    /// Lets programs that are executed have the descriptor.
    keep_on_exec(fd: i32) = __NR_fcntl(fd, F_SETFD, 0);
    /// Waits until all output to the terminal has left.
    drain(fd: i32) = __NR_ioctl(fd, ioctl::TCSBRK, 1);
    /// Makes the terminal the one that controls this session.
    set_controlling_terminal(fd: i32) = __NR_ioctl(fd, ioctl::TIOCSCTTY, 0);
    /// Gives the terminal of this session to one of its process groups.
    set_foreground(fd: i32, group: &Pid) = __NR_ioctl(fd, ioctl::TIOCSPGRP, core::ptr::from_ref(group));
    /// Starts a process group.
    start_process_group() = __NR_setpgid(0, 0);
    /// Sends a signal; to all processes but this one if `pid` is -1.
    kill(pid: Pid, signal: i32) = __NR_kill(pid, signal);
    /// Makes a directory.
    mkdir(path: &CStr, mode: u32) = __NR_mkdir(path.as_ptr(), mode);
    /// Makes `link` point to `target`.
    symlink(target: &CStr, link: &CStr) = __NR_symlink(target.as_ptr(), link.as_ptr());
    /// Mounts, remounts or moves a file system.
    mount(source: &CStr, target: &CStr, fstype: &CStr, flags: u32, options: &CStr) =
        __NR_mount(source.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags, options.as_ptr());
    /// Takes a mount away.
    unmount(target: &CStr, flags: u32) = __NR_umount2(target.as_ptr(), flags);
    /// Powers the machine off, or does with it what else `command` says.
    reboot(command: u32) = __NR_reboot(LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command);
    /// Sets the host name.
    sethostname(name: &str) = __NR_sethostname(name.as_ptr(), name.len());
    /// Has these supplementary groups, and no others.
    set_groups(groups: &[u32]) = __NR_setgroups(groups.len(), groups.as_ptr());
    /// Becomes the group.
    setgid(gid: u32) = __NR_setgid(gid);
    /// Becomes the user, for good.
    setuid(uid: u32) = __NR_setuid(uid);
    /// Starts a session, without a terminal.
    setsid() = __NR_setsid();
}

/// Sets a terminal's size.
pub fn set_window_size(fd: i32, size: ConsoleSize) -> Result<(), Errno> {
    // struct winsize: rows, columns, and two numbers of pixels, which nobody knows.
    let size = [size.rows, size.columns, 0, 0];
    // SAFETY: the kernel reads one struct winsize.
    unsafe { call!(__NR_ioctl, fd, ioctl::TIOCSWINSZ, size.as_ptr()) }.map(drop)
}

/// Writes all file systems' data to their disks.
pub fn sync() {
    // SAFETY: no arguments.
    let _ = unsafe { call!(__NR_sync) };
}

/// Whether a file system is mounted at `path`.
pub fn is_mount_point(path: &CStr) -> bool {
    status(AT_FDCWD, path, AT_NO_AUTOMOUNT)
        .is_ok_and(|it| it.stx_attributes & u64::from(STATX_ATTR_MOUNT_ROOT) != 0)
}

fn status(directory: i32, path: &CStr, flags: u32) -> Result<statx, Errno> {
    // SAFETY: all-zero bytes are a valid struct statx.
    let mut status: statx = unsafe { core::mem::zeroed() };
    let (path, out) = (path.as_ptr(), &raw mut status);
    // SAFETY: `path` ends with NUL, and the kernel writes one struct statx.
    unsafe { call!(__NR_statx, directory, path, flags, STATX_TYPE, out) }?;
    Ok(status)
}
