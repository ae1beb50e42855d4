//! Watches which system calls the threads of a program make once they have sealed themselves, without being
//! asked: the whole program runs under a filter that reports calls and lets them go on (seccomp_unotify(2)).

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

/// Words in memory that a forked process shares: its number, that of its listener, and whether its watcher has that.
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

/// Which calls are reported. Each that is takes its thread some ten microseconds more.
#[derive(Clone, Copy)]
pub enum Watch {
    All,
    Only(i64),
}

impl Watch {
    /// The program that reports these; no other goes to the watcher.
    fn filter(self) -> Vec<libc::sock_filter> {
        let step = |code: u32, jt, jf, k| libc::sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        };
        let end = |action| step(libc::BPF_RET | libc::BPF_K, 0, 0, action);
        let report = end(libc::SECCOMP_RET_USER_NOTIF);
        let Self::Only(number) = self else {
            return vec![report];
        };
        let is = |number: i64, jt, jf| {
            step(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                jt,
                jf,
                number as u32,
            )
        };
        // The number of a call comes first in what a filter is given. By the other call a thread seals itself.
        vec![
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            is(number, 1, 0),
            is(libc::SYS_seccomp, 0, 1),
            report,
            end(libc::SECCOMP_RET_ALLOW),
        ]
    }
}

/// Installs the filter in the calling process, which is about to become the program.
fn install(meeting: &Meeting, filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: a whole program. From the second call on, each that is reported waits for its watcher.
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
        // It is closed by exec, which need not be a call that waits for the watcher.
        while meeting.word(2).load(Ordering::SeqCst) == 0 {
            std::hint::spin_loop();
        }
    }
    Ok(())
}

/// A program that is watched.
pub struct Watched {
    pub child: Child,
    watcher: std::thread::JoinHandle<Seen>,
}

impl Watched {
    pub fn spawn(mut command: Command, calls: Watch) -> Self {
        let filter = calls.filter();
        let meeting: &'static Meeting = Box::leak(Box::new(Meeting::new()));
        meeting.word(1).store(-1, Ordering::SeqCst);
        // SAFETY: only system calls between fork and exec.
        unsafe { command.pre_exec(move || install(meeting, &filter)) };
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
    let flags = rustix::process::PidfdGetfdFlags::empty();
    let listener = rustix::process::pidfd_getfd(&process, fd, flags).unwrap();
    meeting.word(2).store(1, Ordering::SeqCst);
    listener
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
