//! The system calls that init makes, x86-64 only.

use alloc::ffi::CString;
use alloc::format;
use core::arch::{asm, naked_asm};
use core::ffi::{CStr, c_void};
use core::fmt;
use core::ptr::null;

use linux_raw_sys::{errno, general as uapi, ioctl};
use uapi::*;

pub use uapi::{O_DIRECTORY, O_NOCTTY, O_RDONLY, O_RDWR, O_WRONLY};

/// A process id.
pub type Pid = i32;

/// An error number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(u16);

/// Names the errors that init can meet: as constants, and in messages.
macro_rules! errors {
    ($($name:ident $text:literal)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self(errno::$name as u16);)*
        }

        impl fmt::Display for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$name => f.write_str($text),)*
                    Self(number) => write!(f, "error {number}"),
                }
            }
        }
    };
}

errors! {
    EPERM "not permitted"
    ENOENT "no such file or directory"
    ESRCH "no such process"
    EINTR "interrupted"
    EIO "input/output error"
    ENXIO "no such device or address"
    E2BIG "arguments and environment are too long"
    ENOEXEC "not an executable file (does a script lack its #! line?)"
    EAGAIN "a resource is used up for now"
    ENOMEM "out of memory"
    EACCES "permission denied"
    EBUSY "in use"
    EEXIST "it exists already"
    ENODEV "no such device, or not known to this guest kernel"
    ENOTDIR "not a directory"
    EINVAL "invalid argument"
    ENOTTY "not a terminal"
    ETXTBSY "the file is being written"
    EFBIG "too large"
    ENOSPC "no space left"
    EROFS "read-only file system"
    ENAMETOOLONG "name too long"
    ENOSYS "not built into this guest kernel"
    ELOOP "too many symbolic links"
    EAFNOSUPPORT "address family not built into this guest kernel"
    EADDRNOTAVAIL "address not available"
    ENETDOWN "network is down"
    ENETUNREACH "network is unreachable"
    EOPNOTSUPP "not supported"
}

impl Errno {
    /// From the kernel's number.
    pub fn from_number(number: i32) -> Self {
        Self(number as u16)
    }

    /// The kernel's number.
    pub fn number(self) -> i32 {
        self.0.into()
    }
}

/// # Safety
///
/// The arguments must be what the call with this number expects; pointers must be valid for it.
unsafe fn syscall(number: u32, arguments: [usize; 5]) -> Result<usize, Errno> {
    let [a, b, c, d, e] = arguments;
    let result: isize;
    // SAFETY: the caller vouches for the arguments. The kernel changes rax, rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b,
             in("rdx") c, in("r10") d, in("r8") e, lateout("rcx") _, lateout("r11") _,
             options(nostack));
    }
    match result {
        -4095..=-1 => Err(Errno((-result) as u16)),
        _ => Ok(result as usize),
    }
}

/// Calls the kernel. Fewer arguments than five are filled up with zeros.
macro_rules! call {
    (@five $a:expr, $b:expr, $c:expr, $d:expr, $e:expr $(, $z:expr)*) => {
        [$a as usize, $b as usize, $c as usize, $d as usize, $e as usize]
    };
    ($number:ident $(, $argument:expr)*) => {
        syscall($number, call!(@five $($argument,)* 0, 0, 0, 0, 0))
    };
}

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
        // SAFETY: the kernel writes no further than `buffer.len()`.
        unsafe { call!(__NR_read, self.0, buffer.as_mut_ptr(), buffer.len()) }
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

/// Writes to an open descriptor.
pub fn write(fd: i32, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel reads no further than `bytes.len()`.
    unsafe { call!(__NR_write, fd, bytes.as_ptr(), bytes.len()) }
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
    /// Sends a signal; to all processes but this one if `pid` is -1.
    kill(pid: Pid, signal: i32) = __NR_kill(pid, signal);
    /// Makes a directory.
    mkdir(path: &CStr, mode: u32) = __NR_mkdir(path.as_ptr(), mode);
    /// Makes `link` point to `target`.
    symlink(target: &CStr, link: &CStr) = __NR_symlink(target.as_ptr(), link.as_ptr());
    /// Mounts, remounts or moves a file system.
    mount(source: &CStr, target: &CStr, fstype: &CStr, flags: u32, options: &CStr) =
        __NR_mount(source.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags, options.as_ptr());
    /// Powers the machine off.
    reboot_power_off() = __NR_reboot(
        LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF);
    /// Sets the host name.
    sethostname(name: &str) = __NR_sethostname(name.as_ptr(), name.len());
    /// Drops supplementary groups.
    clear_groups() = __NR_setgroups(0, 0);
    /// Becomes the group.
    setgid(gid: u32) = __NR_setgid(gid);
    /// Becomes the user, for good.
    setuid(uid: u32) = __NR_setuid(uid);
    /// Starts a session, without a terminal.
    setsid() = __NR_setsid();
}

/// Writes all file systems' data to their disks.
pub fn sync() {
    // SAFETY: no arguments.
    let _ = unsafe { call!(__NR_sync) };
}

/// The number of this process.
pub fn getpid() -> Pid {
    // SAFETY: no arguments; it cannot fail.
    unsafe { call!(__NR_getpid) }.map_or(0, |pid| pid as Pid)
}

/// Ends this process.
pub fn exit(code: u8) -> ! {
    loop {
        // SAFETY: no pointers.
        let _ = unsafe { call!(__NR_exit_group, code) };
    }
}

/// Executes a program in place of this one; returns only if it cannot.
///
/// # Safety
///
/// `argv` and `envp` are arrays of pointers to C strings that end with a null pointer.
pub unsafe fn execve(path: &CStr, argv: *const *const i8, envp: *const *const i8) -> Errno {
    // SAFETY: as the caller says.
    match unsafe { call!(__NR_execve, path.as_ptr(), argv, envp) } {
        Err(error) => error,
        Ok(_) => Errno::EINVAL,
    }
}

/// Sleeps; a signal may end it early.
pub fn sleep_ms(ms: u32) {
    let time = __kernel_timespec {
        tv_sec: i64::from(ms / 1000),
        tv_nsec: i64::from(ms % 1000) * 1_000_000,
    };
    // SAFETY: the time outlives the call.
    let _ = unsafe { call!(__NR_nanosleep, &raw const time) };
}

/// Whether a file system is mounted at `path`.
pub fn is_mount_point(path: &CStr) -> bool {
    // SAFETY: all-zero bytes are a valid struct statx.
    let mut status: statx = unsafe { core::mem::zeroed() };
    // SAFETY: `path` ends with NUL, and the kernel writes one struct statx.
    let done = unsafe {
        call!(
            __NR_statx,
            AT_FDCWD,
            path.as_ptr(),
            AT_NO_AUTOMOUNT,
            0,
            &raw mut status
        )
    };
    done.is_ok() && status.stx_attributes & u64::from(STATX_ATTR_MOUNT_ROOT) != 0
}

/// Reaps a child process: its id (0 if WNOHANG is in `options` and none has ended) and its
/// status.
pub fn wait_any(options: u32) -> Result<(Pid, i32), Errno> {
    let mut status = 0i32;
    // SAFETY: the kernel writes one int.
    let pid = unsafe { call!(__NR_wait4, -1isize, &raw mut status, options) }?;
    Ok((pid as Pid, status))
}

const ALL_SIGNALS: u64 = !0;

fn set_signal_mask(mask: u64) {
    // SAFETY: the kernel reads one 8-byte signal set.
    let _ = unsafe {
        call!(
            __NR_rt_sigprocmask,
            SIG_SETMASK,
            &raw const mask,
            null::<u64>(),
            8
        )
    };
}

/// Keeps signals pending until [`wait_for_signal`] takes them.
pub fn block_all_signals() {
    set_signal_mask(ALL_SIGNALS);
}

/// Lets signals do what they do.
pub fn unblock_all_signals() {
    set_signal_mask(0);
}

/// Takes the next signal; [`Errno::EAGAIN`] if none comes in time.
pub fn wait_for_signal(timeout_s: Option<i64>) -> Result<i32, Errno> {
    let set = ALL_SIGNALS;
    let time = timeout_s.map(|tv_sec| __kernel_timespec { tv_sec, tv_nsec: 0 });
    let time = time
        .as_ref()
        .map_or(null(), |time| time as *const __kernel_timespec);
    // SAFETY: set and time outlive the call; a null pointer asks for no siginfo, or no timeout.
    let signal = unsafe {
        call!(
            __NR_rt_sigtimedwait,
            &raw const set,
            null::<c_void>(),
            time,
            8
        )
    }?;
    Ok(signal as i32)
}

/// Starts a child that shares this process's memory, and suspends this process until the child
/// has executed a program or ended. No page table is copied and no page copied on write, which
/// is most of what a fork costs. `stack` is the child's.
///
/// # Safety
///
/// `child` is called with `argument`, on `stack`, whose size must suffice.
pub unsafe fn spawn(
    stack: &mut [u128],
    child: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> Result<Pid, Errno> {
    let flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    // SAFETY: `top` is aligned to 16 bytes as the ABI wants it; the rest is the caller's promise.
    match unsafe { clone_and_call(flags.into(), top, child, argument) } {
        pid if pid >= 0 => Ok(pid as Pid),
        error => Err(Errno((-error) as u16)),
    }
}

#[unsafe(naked)]
unsafe extern "C" fn clone_and_call(
    flags: u64,
    stack_top: *mut c_void,
    child: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> isize {
    // The system call takes flags and stack where they are, and keeps r8 and r9.
    naked_asm!(
        "mov r8, rdx",
        "mov r9, rcx",
        "mov eax, {clone}",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "mov rdi, r9",
        "call r8",
        "ud2",
        "2: ret",
        clone = const __NR_clone,
    )
}
