//! Signals as something to poll.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

/// The signals that ask a program to end.
pub const ENDING: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// The names of signals 1 to 31, without `SIG` (signal(7), x86).
pub const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// What C libraries leave to programs of the real-time signals: the first, and the last.
pub const REAL_TIME: [u8; 2] = [34, 64];

/// What a signal is called: `SIGTERM`, `SIGRTMIN+3`; its number where it has no name.
pub fn name(signal: u8) -> String {
    let [first, last] = REAL_TIME;
    match signal {
        1..=31 => format!("SIG{}", NAMES[usize::from(signal) - 1]),
        _ if signal == first => "SIGRTMIN".into(),
        _ if (first..=last).contains(&signal) => format!("SIGRTMIN+{}", signal - first),
        _ => format!("signal {signal}"),
    }
}

/// Has signals do nothing, to this process and to programs that it starts.
pub fn ignore(signals: &[libc::c_int]) {
    for signal in signals {
        // SAFETY: there is no handler to be called.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}

/// Has signals do what they do to a program that knows nothing of them, whatever this process was started to ignore: for one
/// that goes on when whoever has started it is gone.
pub fn heed(signals: &[libc::c_int]) {
    for signal in signals {
        // SAFETY: there is no handler to be called.
        unsafe { libc::signal(*signal, libc::SIG_DFL) };
    }
}

/// Blocks no signal in this thread: for a program that is about to be executed, and would be started with those blocked
/// that this process reads.
///
/// # Errors
/// None that the kernel has.
pub fn block_none() -> io::Result<()> {
    change_mask(libc::SIG_SETMASK, &set_of(&[]))
}

/// Has no signal but SIGKILL and SIGSTOP reach this thread: for a process that ends with another one, and not before.
///
/// # Errors
/// None that the kernel has.
pub fn block_all() -> io::Result<()> {
    let mut all = set_of(&[]);
    // SAFETY: it fills a set that is there.
    unsafe { libc::sigfillset(&raw mut all) };
    change_mask(libc::SIG_SETMASK, &all)
}

/// A set of these signals.
pub fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes the set; sigaddset gets an initialized set and a number, which it checks.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    }
}

fn change_mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is initialized, and the old one is not asked for.
    match unsafe { libc::pthread_sigmask(how, set, null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// A set of signals that are read instead of delivered (signalfd(2)).
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals for this thread, and for all that it starts from now on, and makes them readable.
    /// Those that this process was started to ignore (`nohup`, jobs in the background of a script) stay so.
    ///
    /// # Errors
    /// When the host gives no descriptor.
    pub fn take(signals: &[libc::c_int]) -> io::Result<Self> {
        let signals = signals.iter().filter(|signal| !is_ignored(**signal));
        let set = set_of(&signals.copied().collect::<Vec<_>>());
        change_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: the set is initialized.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Has one of these signals do what it does to a program that knows nothing of it: SIGTSTP stops this process, unless
    /// there is nobody who could have it continue (an orphaned process group).
    pub fn deliver(&self, signal: libc::c_int) {
        let set = set_of(&[signal]);
        // It cannot fail for a set of known signals.
        let _ = change_mask(libc::SIG_UNBLOCK, &set);
        // SAFETY: a number, which the kernel checks.
        unsafe { libc::raise(signal) };
        let _ = change_mask(libc::SIG_BLOCK, &set);
    }

    /// Does something while the signals of [`ENDING`] do what they do to a program that knows nothing of them: they end
    /// this process at once, wherever in the kernel it waits.
    pub fn while_mortal<T>(&self, act: impl FnOnce() -> T) -> T {
        let set = set_of(&ENDING);
        let _ = change_mask(libc::SIG_UNBLOCK, &set);
        let done = act();
        let _ = change_mask(libc::SIG_BLOCK, &set);
        done
    }

    /// The number of the next signal that has arrived, if one has.
    ///
    /// # Errors
    /// When the descriptor cannot be read.
    pub fn next(&self) -> io::Result<Option<libc::c_int>> {
        Ok(self.next_sent()?.map(|sent| sent.signal))
    }

    /// The next signal that has arrived, if one has, and who has sent it.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_sent(&self) -> io::Result<Option<Sent>> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut info) {
            Ok(_) => {
                let [signal, _error, _code, sender] = [0, 4, 8, 12].map(|at: usize| {
                    i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]])
                });
                Ok(Some(Sent { signal, sender }))
            }
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A signal that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its number.
    pub signal: libc::c_int,
    /// The process that has sent it; 0 if that is the kernel, or out of sight.
    pub sender: libc::pid_t,
}

impl Sent {
    /// Was it sent by whatever starts and ends the services of this host, or of this user? It ends whoever is left when it
    /// goes down, and not because somebody wanted the end of just this one. It is the first process, or a user's systemd.
    pub fn is_from_service_manager(&self) -> bool {
        let name = || std::fs::read_to_string(format!("/proc/{}/comm", self.sender));
        self.sender == 1 || self.sender > 1 && name().is_ok_and(|name| name.trim_end() == "systemd")
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only writes the old one, which is read only if it did.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names() {
        for (number, expected) in [
            (libc::SIGTERM, "SIGTERM"),
            (libc::SIGUSR1, "SIGUSR1"),
            (libc::SIGSYS, "SIGSYS"),
            (34, "SIGRTMIN"),
            (37, "SIGRTMIN+3"),
            (64, "SIGRTMIN+30"),
            (33, "signal 33"),
            (0, "signal 0"),
        ] {
            assert_eq!(name(number as u8), expected);
        }
    }

    #[test]
    fn a_signal_is_read_once() {
        std::thread::spawn(|| {
            let signals = Signals::take(&[libc::SIGUSR2]).unwrap();
            assert_eq!(signals.next().unwrap(), None);
            // SAFETY: the signal is blocked in this thread, so it only becomes readable.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
            let sent = signals.next_sent().unwrap().unwrap();
            let own = std::process::id() as libc::pid_t;
            assert_eq!((sent.signal, sent.sender), (libc::SIGUSR2, own));
            assert!(!sent.is_from_service_manager());
            assert!(Sent { sender: 1, ..sent }.is_from_service_manager());
            assert!(!Sent { sender: 0, ..sent }.is_from_service_manager());
            assert_eq!(signals.next().unwrap(), None);
        })
        .join()
        .unwrap();
    }
}
