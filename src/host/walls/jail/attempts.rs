//! Acts that nothing in a jail should succeed in, and the things of the host that they are aimed at.

use std::ffi::CStr;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::ptr::null;

/// Something to be reached outside.
pub struct Host {
    process: i32,
    /// A key in the session keyring.
    key: libc::c_long,
    /// `struct sockaddr_in` of the listener.
    inet: [u8; 16],
    /// `struct sockaddr_un` of the other listener, in the abstract namespace.
    unix: [u8; 16],
    /// A disk of 1 MiB that the VM writes to.
    disk: File,
    _listeners: (TcpListener, UnixListener),
}

impl Host {
    pub fn new() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut inet = [0; 16];
        inet[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        inet[2..4].copy_from_slice(&tcp.local_addr().unwrap().port().to_be_bytes());
        inet[4..8].copy_from_slice(&[127, 0, 0, 1]);

        let name = format!("kvmlet{:07}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let mut unix = [0; 16];
        unix[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        unix[3..].copy_from_slice(name.as_bytes());

        let (kind, name, secret) = (c"user".as_ptr(), c"kvmlet".as_ptr(), c"secret".as_ptr());
        // SAFETY: strings that end with a zero. KEYCTL_JOIN_SESSION_KEYRING; the key goes there (-3).
        let key = unsafe {
            libc::syscall(libc::SYS_keyctl, 1, 0);
            libc::syscall(libc::SYS_add_key, kind, name, secret, 6, -3)
        };
        assert!(key > 0, "{}", std::io::Error::last_os_error());
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(1 << 20).unwrap();
        Self {
            disk,
            process: std::process::id() as i32,
            key,
            inet,
            unix,
            _listeners: (tcp, listener),
        }
    }
}

impl Host {
    /// Writes a byte to the disk.
    pub fn write_at(&self, offset: u64) -> std::io::Result<()> {
        self.disk.write_all_at(b"x", offset)
    }
}

/// Tries; -1 is what it should return.
pub type Attempt = fn(&Host) -> libc::c_long;

fn open(path: &CStr, flags: libc::c_int) -> libc::c_long {
    // SAFETY: the string ends with a zero.
    unsafe { libc::open(path.as_ptr(), flags, 0o600) }.into()
}

fn socket(family: libc::c_int, kind: libc::c_int) -> libc::c_long {
    // SAFETY: numbers.
    unsafe { libc::socket(family, kind, 0) }.into()
}

fn connect(address: &[u8; 16]) -> libc::c_long {
    let family = i32::from(u16::from_ne_bytes([address[0], address[1]]));
    let socket = socket(family, libc::SOCK_STREAM);
    // SAFETY: the address has the length that is told.
    unsafe { libc::connect(socket as i32, address.as_ptr().cast(), 16) }.into()
}

fn call(number: libc::c_long, arguments: [usize; 4]) -> libc::c_long {
    let [a, b, c, d] = arguments;
    // SAFETY: callers pass what the call reads or writes as pointers to memory of that size; what would do
    // harm is expected to fail, in a process made for it.
    unsafe { libc::syscall(number, a, b, c, d) }
}

fn at<T: ?Sized>(value: &T) -> usize {
    (&raw const *value).cast::<u8>().addr()
}

fn text(text: &CStr) -> usize {
    text.as_ptr().addr()
}

/// What is tried, and how: files, mounts, namespaces, programs, rank, processes, networks, the kernel.
pub const ATTEMPTS: &[(&str, Attempt)] = &[
    ("a file of the host", |_| {
        open(c"/etc/passwd", libc::O_RDONLY)
    }),
    ("the root", |_| {
        open(c"/", libc::O_RDONLY | libc::O_DIRECTORY)
    }),
    ("a new file", |_| {
        open(c"/file", libc::O_CREAT | libc::O_RDWR)
    }),
    ("a file without a name", |_| {
        open(c"/", libc::O_TMPFILE | libc::O_RDWR)
    }),
    ("a parent's root", |_| {
        open(c"/proc/1/root/etc/passwd", libc::O_RDONLY)
    }),
    ("a way up", |_| {
        open(c"../../../../etc/passwd", libc::O_RDONLY)
    }),
    ("KVM again", |_| open(c"/dev/kvm", libc::O_RDWR)),
    ("a file by its handle", |_| {
        call(libc::SYS_open_by_handle_at, [1, at(&[0u8; 16]), 0, 0])
    }),
    ("a directory", |_| {
        call(libc::SYS_mkdir, [text(c"/d"), 0o700, 0, 0])
    }),
    ("a device", |_| {
        let null = libc::makedev(1, 3) as usize;
        call(
            libc::SYS_mknod,
            [text(c"/n"), libc::S_IFCHR as usize | 0o600, null, 0],
        )
    }),
    ("another root", |_| {
        call(libc::SYS_chroot, [text(c"/"), 0, 0, 0])
    }),
    ("a mount", |_| {
        call(libc::SYS_mount, [text(c"x"), text(c"/"), text(c"tmpfs"), 0])
    }),
    ("a writable root", |_| {
        call(
            libc::SYS_mount,
            [0, text(c"/"), 0, libc::MS_REMOUNT as usize],
        )
    }),
    ("an unmount", |_| {
        call(
            libc::SYS_umount2,
            [text(c"/"), libc::MNT_DETACH as usize, 0, 0],
        )
    }),
    ("a new mount", |_| {
        call(libc::SYS_fsopen, [text(c"tmpfs"), 0, 0, 0])
    }),
    ("a user namespace", |_| {
        call(libc::SYS_unshare, [libc::CLONE_NEWUSER as usize, 0, 0, 0])
    }),
    ("a mount namespace", |_| {
        call(libc::SYS_unshare, [libc::CLONE_NEWNS as usize, 0, 0, 0])
    }),
    ("a network namespace", |_| {
        call(libc::SYS_unshare, [libc::CLONE_NEWNET as usize, 0, 0, 0])
    }),
    ("a program", |_| {
        let arguments = [text(c"/bin/sh"), 0];
        call(libc::SYS_execve, [arguments[0], at(&arguments), 0, 0])
    }),
    ("root's rights", |_| call(libc::SYS_setresuid, [0, 0, 0, 0])),
    ("root's group", |_| call(libc::SYS_setresgid, [0, 0, 0, 0])),
    ("other groups", |_| {
        call(libc::SYS_setgroups, [1, at(&[0u32]), 0, 0])
    }),
    ("capabilities", |_| {
        call(
            libc::SYS_capset,
            [at(&[0x2008_0522_u32, 0]), at(&[u32::MAX; 6]), 0, 0],
        )
    }),
    ("looser bits", |_| {
        call(libc::SYS_prctl, [libc::PR_SET_SECUREBITS as usize, 0, 0, 0])
    }),
    ("priority", |_| {
        call(libc::SYS_setpriority, [0, 0, -5_isize as usize, 0])
    }),
    ("more files", |_| {
        let more = [1u64 << 20; 2];
        call(
            libc::SYS_setrlimit,
            [libc::RLIMIT_NOFILE as usize, at(&more), 0, 0],
        )
    }),
    // Signal 0 asks for the same rights, and leaves whoever is in reach alive.
    ("a signal to a process", |host| {
        call(libc::SYS_kill, [host.process as usize, 0, 0, 0])
    }),
    ("killing all processes", |_| {
        call(libc::SYS_kill, [usize::MAX, libc::SIGKILL as usize, 0, 0])
    }),
    ("tracing a process", |host| {
        call(
            libc::SYS_ptrace,
            [libc::PTRACE_ATTACH as usize, host.process as usize, 0, 0],
        )
    }),
    ("a process's memory", |host| {
        let buffer = [0u8; 16];
        let vector = [at(&buffer), 16];
        // SAFETY: one vector on each side, and room for 16 bytes.
        unsafe {
            libc::syscall(
                libc::SYS_process_vm_readv,
                host.process,
                &vector,
                1,
                &vector,
                1,
                0,
            )
        }
    }),
    ("a handle on a process", |host| {
        call(libc::SYS_pidfd_open, [host.process as usize, 0, 0, 0])
    }),
    ("a socket of packets", |_| {
        socket(libc::AF_PACKET, libc::SOCK_RAW)
    }),
    ("a raw socket", |_| socket(libc::AF_INET, libc::SOCK_RAW)),
    ("a service of the host", |host| connect(&host.inet)),
    ("a socket by name", |host| connect(&host.unix)),
    ("the user's keys", |host| {
        let buffer = [0u8; 16];
        call(libc::SYS_keyctl, [11, host.key as usize, at(&buffer), 16]) // KEYCTL_READ
    }),
    ("BPF", |_| call(libc::SYS_bpf, [5, at(&[0u8; 128]), 128, 0])),
    ("I/O ports", |_| call(libc::SYS_iopl, [3, 0, 0, 0])),
    ("the host's name", |_| {
        call(libc::SYS_sethostname, [text(c"x"), 1, 0, 0])
    }),
    ("the clock", |_| {
        call(libc::SYS_settimeofday, [at(&[0u64; 2]), 0, 0, 0])
    }),
    ("swap", |_| call(libc::SYS_swapon, [text(c"/"), 0, 0, 0])),
    ("a reboot", |_| {
        call(
            libc::SYS_reboot,
            [0xfee1_dead, 672_274_793, libc::RB_AUTOBOOT as usize, 0],
        )
    }),
    ("the kernel's log", |_| {
        call(libc::SYS_syslog, [3, null::<u8>().addr(), 0, 0])
    }),
    ("a module", |_| {
        call(libc::SYS_finit_module, [0, text(c""), 0, 0])
    }),
];

/// The names of all attempts.
pub fn all() -> Vec<&'static str> {
    ATTEMPTS.iter().map(|(what, _)| *what).collect()
}

/// Those of these attempts that succeed.
pub fn reachable(host: &Host, attempts: &[&'static str]) -> Vec<&'static str> {
    let tried = ATTEMPTS.iter().filter(|(what, _)| attempts.contains(what));
    let reached = tried.filter(|(_, attempt)| attempt(host) != -1);
    reached.map(|(what, _)| *what).collect()
}

/// What Landlock keeps out by itself, and since which version: ports and scopes have come by and by.
pub const OF_LANDLOCK: [(&str, libc::c_long); 3] = [
    ("a signal to a process", 6),
    ("a service of the host", 4),
    ("a socket by name", 6),
];

/// Those attempts that succeed without namespaces: all but what Landlock of this version keeps out.
pub fn beyond_landlock(version: libc::c_long, attempts: &[&'static str]) -> Vec<&'static str> {
    let is_kept_out = |attempt: &&'static str| {
        let mut known = OF_LANDLOCK.iter();
        known.any(|(what, since)| what == attempt && version >= *since)
    };
    let attempts = attempts.iter().copied();
    attempts.filter(|attempt| !is_kept_out(attempt)).collect()
}

const MUCH: usize = 8 << 30;

fn map(flags: libc::c_int) -> libc::c_long {
    let flags = flags | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a mapping that nobody uses.
    unsafe { libc::mmap(std::ptr::null_mut(), MUCH, access, flags, -1, 0) as libc::c_long }
}

/// More than a VM needs of what it has.
pub const EXCESSES: &[(&str, Attempt)] = &[
    ("8 GiB of heap", |_| {
        // SAFETY: nobody uses what is added.
        unsafe { libc::sbrk(MUCH as isize) as libc::c_long }
    }),
    ("8 GiB of memory", |_| map(libc::MAP_PRIVATE)),
    ("8 GiB of shared memory", |_| map(libc::MAP_SHARED)),
    ("a longer disk", |host| match host.write_at(1 << 20) {
        Ok(()) => 0,
        Err(_) => -1,
    }),
    ("a much longer disk", |host| {
        // SAFETY: takes numbers.
        unsafe { libc::ftruncate(host.disk.as_raw_fd(), 512 << 20) }.into()
    }),
    ("room for a longer disk", |host| {
        // SAFETY: takes numbers.
        unsafe { libc::fallocate(host.disk.as_raw_fd(), 0, 0, 512 << 20) }.into()
    }),
    ("zeroes for a longer disk", |host| {
        allocate(host, libc::FALLOC_FL_ZERO_RANGE)
    }),
    ("a thousand descriptors", |host| {
        // SAFETY: copies of an open descriptor.
        let copies = (0..1000).map(|_| unsafe { libc::dup(host.disk.as_raw_fd()) });
        copies.min().map_or(-1, libc::c_long::from)
    }),
];

/// More of the host's disk than the file has a right to, which no limit on its size keeps from it: only a list does.
pub const UNLIMITED: &[(&str, Attempt)] = &[
    ("blocks beyond the end", |host| {
        allocate(host, libc::FALLOC_FL_KEEP_SIZE)
    }),
    ("zeroes beyond the end", |host| {
        allocate(host, libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE)
    }),
];

fn allocate(host: &Host, mode: libc::c_int) -> libc::c_long {
    // SAFETY: takes numbers.
    unsafe { libc::fallocate(host.disk.as_raw_fd(), mode, 2 << 20, 1 << 20) }.into()
}

/// What only a list of system calls keeps out: it does no harm in a jail, but is not needed either.
pub const HARMLESS: &[(&str, Attempt)] = &[
    ("a socket", |_| socket(libc::AF_INET, libc::SOCK_STREAM)),
    ("a thread", |_| call(libc::SYS_fork, [0; 4])),
    ("a user fault", |_| {
        call(libc::SYS_userfaultfd, [1, 0, 0, 0])
    }),
    ("a performance counter", |_| {
        // SAFETY: an empty perf_event_attr of the first version, of this thread.
        unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                [64u64 << 32, 0, 0, 0, 0, 0, 0, 0].as_ptr(),
                0,
                -1,
                -1,
                0,
            )
        }
    }),
    ("a ring", |_| {
        call(libc::SYS_io_uring_setup, [1, at(&[0u8; 128]), 0, 0])
    }),
    ("a file in memory", |_| {
        call(libc::SYS_memfd_create, [text(c"x"), 0, 0, 0])
    }),
    ("code", |_| {
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
        call(libc::SYS_mmap, [0, 4096, libc::PROT_EXEC as usize, flags])
    }),
    ("a handler of signals", |_| {
        call(libc::SYS_rt_sigaction, [libc::SIGSYS as usize, 0, 0, 8])
    }),
    ("another filter", |_| {
        call(libc::SYS_seccomp, [2, 0, at(&[0u8; 16]), 0])
    }),
    ("time", |_| call(libc::SYS_times, [0; 4])),
];
