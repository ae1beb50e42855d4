//! Watches which system calls the threads of a program make once they have sealed themselves, without being
//! asked: the whole program runs under a filter that reports each call and lets it go on (seccomp_unotify(2)).

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicI32, Ordering};

/// A call of a thread: its number and its arguments, as far as 32 bits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    pub number: i64,
    pub arguments: [u32; 6],
}

/// The name of the first thread of the first process.
pub const SUPERVISOR: &str = "supervisor";

/// What each thread, by its name, has called.
pub type Seen = HashMap<String, BTreeSet<Call>>;

const NOTIF_RECV: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl; // SECCOMP_IOCTL_NOTIF_RECV
const NOTIF_SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl; // SECCOMP_IOCTL_NOTIF_SEND

/// Words in memory that a forked process shares: its number, and that of its listener.
struct Meeting(*mut AtomicI32);

// SAFETY: the words are atomic, and the mapping stays.
unsafe impl Send for Meeting {}
// SAFETY: as above.
unsafe impl Sync for Meeting {}

impl Meeting {
    fn new() -> Self {
        // SAFETY: a new mapping.
        let place = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(place, libc::MAP_FAILED);
        Self(place.cast())
    }

    fn word(&self, index: usize) -> &AtomicI32 {
        // SAFETY: within the page.
        unsafe { &*self.0.add(index) }
    }
}

/// Installs the filter in the calling process, which is about to become the program.
fn install(meeting: &Meeting) -> io::Result<()> {
    // Report all; let the data structure alone.
    let filter = [libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_USER_NOTIF,
    }];
    let program = libc::sock_fprog {
        len: 1,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: a whole program. From the second call on, each call waits for its watcher.
    unsafe {
        meeting.word(0).store(libc::getpid(), Ordering::SeqCst);
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        let listener = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        );
        if listener < 0 {
            return Err(io::Error::last_os_error());
        }
        meeting.word(1).store(listener as i32, Ordering::SeqCst);
    }
    Ok(())
}

/// A program that is watched.
pub struct Watched {
    pub child: Child,
    watcher: std::thread::JoinHandle<Seen>,
}

impl Watched {
    pub fn spawn(mut command: Command) -> Self {
        let meeting: &'static Meeting = Box::leak(Box::new(Meeting::new()));
        meeting.word(1).store(-1, Ordering::SeqCst);
        // SAFETY: only system calls between fork and exec.
        unsafe { command.pre_exec(|| install(meeting)) };
        // Spawning waits for exec, which waits for the watcher.
        let spawning = std::thread::spawn(move || command.spawn().unwrap());
        let watcher = std::thread::spawn(|| {
            let listener = listener(meeting);
            watch(&listener, meeting.word(0).load(Ordering::SeqCst))
        });
        Self {
            child: spawning.join().unwrap(),
            watcher,
        }
    }

    /// Waits for the end of all of the program's processes.
    pub fn seen(self) -> Seen {
        self.watcher.join().unwrap()
    }
}

fn listener(meeting: &Meeting) -> OwnedFd {
    while meeting.word(1).load(Ordering::SeqCst) < 0 {
        std::thread::yield_now();
    }
    let pid = meeting.word(0).load(Ordering::SeqCst);
    let fd = meeting.word(1).load(Ordering::SeqCst);
    let process = rustix::process::pidfd_open(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::PidfdFlags::empty(),
    )
    .unwrap();
    rustix::process::pidfd_getfd(&process, fd, rustix::process::PidfdGetfdFlags::empty()).unwrap()
}

/// Watches the program whose first process this is.
fn watch(listener: &OwnedFd, first: i32) -> Seen {
    let mut seen = Seen::new();
    let mut sealed: HashMap<u32, String> = HashMap::new();
    loop {
        let mut fd = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd.
        unsafe { libc::poll(&mut fd, 1, -1) };
        if fd.revents & libc::POLLIN == 0 {
            if fd.revents & (libc::POLLHUP | libc::POLLERR) != 0 {
                return seen;
            }
            continue;
        }
        // SAFETY: zero is valid; the kernel wants it so.
        let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: stores into the structure.
        if unsafe { libc::ioctl(fd.fd, NOTIF_RECV, &raw mut notice) } != 0 {
            continue; // its thread was killed or interrupted
        }
        let call = Call {
            number: notice.data.nr.into(),
            arguments: [0, 1, 2, 3, 4, 5].map(|index: usize| notice.data.args[index] as u32),
        };
        if let Some(name) = sealed.get(&notice.pid) {
            seen.entry(name.clone()).or_default().insert(call);
        } else if call.number == libc::SYS_seccomp
            && call.arguments[0] == libc::SECCOMP_SET_MODE_FILTER
        {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", notice.pid));
            // It has the name of the VM's.
            let name = match notice.pid == first.unsigned_abs() {
                true => SUPERVISOR.into(),
                false => name.unwrap_or_default().trim().into(),
            };
            sealed.insert(notice.pid, name);
        }
        let answer = libc::seccomp_notif_resp {
            id: notice.id,
            val: 0,
            error: 0,
            flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        };
        // SAFETY: reads the structure. The thread may be gone by now.
        unsafe { libc::ioctl(fd.fd, NOTIF_SEND, &raw const answer) };
    }
}
