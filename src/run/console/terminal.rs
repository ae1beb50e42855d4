//! The terminal in raw mode, and back on every way out.

use kvmlet_spec::ConsoleSize;
use kvmlet_sys::kin;
use kvmlet_sys::thread::lock;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, Once};

/// The modes to go back to, for the panic hook, which runs even where a panic aborts.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// The same for the handler of signals, which can wait for no lock; null where there are none. What it has led to is
/// never freed: there are few.
static FOR_SIGNALS: AtomicPtr<libc::termios> = AtomicPtr::new(null_mut());

/// Signals by which this process would end with the terminal as it is: by a bug, a limit, or somebody who sends one
/// that kvmlet has no use for.
const DEADLY: [libc::c_int; 15] = [
    libc::SIGABRT,
    libc::SIGALRM,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGIO,
    libc::SIGPROF,
    libc::SIGPWR,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGTRAP,
    libc::SIGUSR2,
    libc::SIGVTALRM,
    libc::SIGXCPU,
    libc::SIGXFSZ,
];

/// While this lives, the terminal passes each key on as it is pressed.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Sets raw mode if this process is in the foreground of the terminal that standard input is.
    #[must_use = "the terminal is as it was when this is dropped"]
    pub fn enter() -> Option<Self> {
        if !in_foreground() {
            return None;
        }
        let now = tcgetattr(stdin()).ok()?;
        let mut raw = now.clone();
        raw.make_raw();
        // The guest's own terminal driver writes carriage returns; kvmlet's messages rely on the host's.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        save(now);
        restore_on_panic();
        restore_on_signals();
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(()))
    }

    /// Sets raw mode again: a shell may have set others while this process was stopped. `None` if somebody else has
    /// the terminal now. The modes to go back to are the first ones, for a shell may have left ours.
    pub fn again(self) -> Option<Self> {
        std::mem::forget(self);
        Self::enter()
    }

    /// Is the terminal still this process's to read?
    pub fn is_ours(&self) -> bool {
        in_foreground()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// How big the terminal is that the guest's output goes to, or its input comes from.
pub fn size() -> Option<ConsoleSize> {
    let sizes = [stdout(), stdin(), stderr()].map(tcgetwinsize);
    let mut sizes = sizes.into_iter().flatten();
    // Serial terminals say that they are of no size.
    let size = sizes.find(|size| size.ws_col > 0 && size.ws_row > 0)?;
    Some(ConsoleSize {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}

/// The same terminal, opened to be written to and not to be read. After `su` its node is another user's; but whose
/// session it controls may open it by another name (tty(4)).
pub(super) fn to_write_to(terminal: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let open = |path: &str| {
        let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        open(path, flags, Mode::empty())
    };
    let opened = open(&format!("/proc/self/fd/{}", terminal.as_raw_fd()));
    Ok(match opened {
        Err(Errno::ACCESS) if controls_us(terminal) => open("/dev/tty"),
        opened => opened,
    }?)
}

/// Only of the terminal that controls this session the kernel tells a session, which has no number for a process in
/// another namespace: 0.
fn controls_us(terminal: BorrowedFd<'_>) -> bool {
    // SAFETY: the call takes a descriptor, which is borrowed, and nothing else.
    unsafe { libc::tcgetsid(terminal.as_raw_fd()) != -1 }
}

/// Only there may a terminal be read and set.
pub(crate) fn in_foreground() -> bool {
    kin::is_in_foreground(stdin())
}

fn saved() -> MutexGuard<'static, Option<Termios>> {
    lock(&SAVED)
}

/// Keeps the first modes: those that come after it are a guest's or a shell's.
fn save(now: Termios) {
    let mut saved = saved();
    if saved.is_some() {
        return;
    }
    *saved = Some(now);
    // SAFETY: all-zero is a valid value of this structure of numbers, and the call only fills it.
    let modes = unsafe {
        let mut modes: libc::termios = std::mem::zeroed();
        (libc::tcgetattr(libc::STDIN_FILENO, &raw mut modes) == 0).then_some(modes)
    };
    if let Some(modes) = modes {
        FOR_SIGNALS.store(Box::into_raw(Box::new(modes)), Ordering::Release);
    }
}

fn forget() -> Option<Termios> {
    FOR_SIGNALS.store(null_mut(), Ordering::Release);
    saved().take()
}

fn restore() {
    // Somebody else's modes are not ours to set.
    if let Some(before) = forget().filter(|_| in_foreground()) {
        // The terminal may have gone away; then there is nothing to put back. And its reader may stand still: what was
        // written is not waited for.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}

fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            print(panic);
        }));
    });
}

extern "C" fn on_deadly(signal: libc::c_int) {
    let modes = FOR_SIGNALS.swap(null_mut(), Ordering::AcqRel);
    // SAFETY: both calls are safe in a handler (signal-safety(7)); the modes are never freed. The signal was taken from
    // this handler when it was called, so this one ends the process as if there were none.
    unsafe {
        if !modes.is_null() {
            libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, modes);
        }
        libc::raise(signal);
    }
}

fn restore_on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in DEADLY {
            // SAFETY: all-zero is a valid value of the structure, an empty set of signals among it; the handler does
            // what a handler may.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, std::ptr::null(), &raw mut action);
                // One that is ignored, or has a handler, ends nothing.
                if action.sa_sigaction != libc::SIG_DFL {
                    continue;
                }
                action.sa_sigaction = on_deadly as *const () as usize;
                action.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER;
                libc::sigaction(signal, &raw const action, null_mut());
            }
        }
    });
}
