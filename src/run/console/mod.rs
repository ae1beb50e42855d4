//! Between the user's terminal and the guest's: input, signals, and waiting for the end.

mod attendance;
mod input;
mod terminal;

pub(crate) use attendance::attend;
pub(crate) use input::Keys;
pub use terminal::{Raw, size};

use kvmlet_sys::interrupt;
use kvmlet_sys::signals::{self, ENDING, Signals};
use kvmlet_vmm::vm::ExitReason;
use rustix::stdio::{dup2_stdin, stderr, stdin, stdout};
use rustix::termios::isatty;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How often it is looked whether this process has come to the foreground of its terminal.
const LOOK: Duration = Duration::from_millis(250);

/// How an attended VM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    Guest(ExitReason),
    /// By the escape key.
    Escape,
    /// By a signal to this process.
    Signal(libc::c_int),
    /// By order of its supervisor.
    Ordered,
}

/// This process's terminal and signals. Signals are taken over before anything is set up, so that all threads leave
/// them to us; the terminal when there is somebody to look after its keys: until then Ctrl-C ends the start.
pub(crate) struct Console {
    signals: Signals,
    /// Standard input, if it is a terminal.
    terminal: Option<Terminal>,
}

/// A terminal, which is raw while this process is in its foreground. Elsewhere it must not be read: the kernel would
/// stop us.
struct Terminal {
    raw: Option<Raw>,
}

impl Console {
    /// Takes over the signals that end the VM cleanly, that stop and continue it, and the one that asks for statistics.
    /// Those that end it end what this thread waits for, too. Dropping it restores the terminal.
    pub fn take() -> io::Result<Self> {
        let others = [libc::SIGUSR1, libc::SIGTSTP, libc::SIGCONT];
        let signals = Signals::take(&[&ENDING[..], &others].concat())?;
        interrupt::by_signals();
        // In the background of a terminal they would stop this process, and its VM.
        signals::ignore(&[libc::SIGTTIN, libc::SIGTTOU]);
        let terminal = isatty(stdin()).then_some(Terminal { raw: None });
        Ok(Self { signals, terminal })
    }

    /// Takes the terminal over when this process has come to its foreground, and lets it go when it has left: a shell
    /// tells neither to a job that runs. Returns how long until that is to be looked at again.
    pub fn follow_foreground(&mut self) -> Option<Duration> {
        let terminal = self.terminal.as_mut()?;
        terminal.raw = match terminal.raw.take() {
            Some(raw) if !raw.is_ours() => raw.again(),
            Some(raw) => Some(raw),
            None => Raw::enter(),
        };
        terminal.raw.is_none().then_some(LOOK)
    }

    /// Is standard input a terminal?
    pub fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Is this a terminal in whose foreground we are? Then keys come one by one, and one of them is the escape key.
    pub fn has_keys(&self) -> bool {
        let terminal = self.terminal.as_ref();
        terminal.is_some_and(|terminal| terminal.raw.is_some())
    }

    /// The signals that this process is sent.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Leaves the terminal, with its modes, to the process that this one was forked from. What comes from `keys` is
    /// standard input then, and of outputs that are terminals this process keeps the end that is written to.
    pub fn leave_terminal(&mut self, keys: Option<OwnedFd>) -> io::Result<()> {
        self.terminal = None;
        if let Some(keys) = keys {
            dup2_stdin(&keys)?;
        }
        only_write_to_terminals()
    }

    /// Gives the terminal back and stops this process, until somebody has it continue.
    pub fn suspend(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.raw = None;
        }
        self.signals.deliver(libc::SIGTSTP);
        self.resume();
    }

    /// Takes the terminal over once more, after this process was stopped, if it has come to its foreground.
    pub fn resume(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.raw = match terminal.raw.take() {
                Some(raw) => raw.again(),
                None => Raw::enter(),
            };
        }
    }
}

/// Of outputs that are terminals this process keeps the end that is written to.
pub(crate) fn only_write_to_terminals() -> io::Result<()> {
    for (output, replace) in [
        (stdout(), dup2_stdout as fn(OwnedFd) -> _),
        (stderr(), dup2_stderr),
    ] {
        if !isatty(output) {
            continue;
        }
        match terminal::to_write_to(output) {
            Ok(terminal) => replace(terminal)?,
            // Another user's, say, which is not this session's either.
            Err(error) => {
                log::debug!("the terminal cannot be opened to be written to: {error}")
            }
        }
    }
    Ok(())
}

fn dup2_stdout(fd: OwnedFd) -> rustix::io::Result<()> {
    rustix::stdio::dup2_stdout(fd)
}

fn dup2_stderr(fd: OwnedFd) -> rustix::io::Result<()> {
    rustix::stdio::dup2_stderr(fd)
}
