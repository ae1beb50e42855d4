//! Between the user's terminal and the guest's: input, signals, and waiting for the end.

mod input;
mod terminal;

pub(crate) use input::Keys;
pub use terminal::size;

use crate::Error;
use crate::silence::Silence;
use crate::stopping::{Answer, Stopping};
use input::Input;
use kvmlet_sys::interrupt;
use kvmlet_sys::signals::{self, ENDING, Signals};
use kvmlet_sys::wait::{self, Slot, Until};
use kvmlet_vmm::vm::{ExitReason, VmHandle};
use rustix::stdio::{dup2_stdin, stderr, stdin, stdout};
use rustix::termios::isatty;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use terminal::Raw;

/// How often it is looked whether this process has come to the foreground of its terminal.
const LOOK: Duration = Duration::from_millis(250);

/// How an attended VM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Guest(ExitReason),
    /// By the escape key.
    Escape,
    /// By a signal to kvmlet.
    Signal(libc::c_int),
}

/// This process's terminal and signals. Signals are taken over before anything is set up, so that all threads leave
/// them to us; the terminal when there is somebody to look after its keys: until then Ctrl-C ends the start.
pub(crate) struct Console {
    signals: Signals,
    /// Standard input, if it is a terminal.
    terminal: Option<Terminal>,
    /// Another process attends this one, and stops it when it is stopped itself: the end of a pipe that it holds.
    supervisor: Option<OwnedFd>,
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
        Ok(Self {
            signals,
            terminal,
            supervisor: None,
        })
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

    /// Leaves the terminal, with its modes, to the process that this one was forked from, which holds the other end of
    /// the pipe `supervisor`. What comes from `keys` is standard input then, and of outputs that are terminals this
    /// process keeps the end that is written to.
    pub fn leave_terminal(&mut self, supervisor: OwnedFd, keys: Option<OwnedFd>) -> io::Result<()> {
        self.supervisor = Some(supervisor);
        self.terminal = None;
        if let Some(keys) = keys {
            dup2_stdin(&keys)?;
        }
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

    /// Connects standard input to the guest until the VM ends. Who wants its end has the guest asked for it, or cuts
    /// its power where that is [`stopping`](Stopping)'s answer. SIGUSR1 calls `on_usr1`.
    pub fn attend(
        &mut self,
        vm: &VmHandle,
        stopping: Stopping,
        silence: Silence,
        on_usr1: impl Fn(),
    ) -> Result<End, Error> {
        let end = wait(vm, self, stopping, silence, on_usr1)?;
        if !matches!(end, End::Guest(_)) {
            vm.stop();
        }
        Ok(end)
    }
}

fn dup2_stdout(fd: OwnedFd) -> rustix::io::Result<()> {
    rustix::stdio::dup2_stdout(fd)
}

fn dup2_stderr(fd: OwnedFd) -> rustix::io::Result<()> {
    rustix::stdio::dup2_stderr(fd)
}

fn wait(
    vm: &VmHandle,
    console: &mut Console,
    mut stopping: Stopping,
    mut silence: Silence,
    on_usr1: impl Fn(),
) -> Result<End, Error> {
    let host = |source| Error::Host {
        what: "events",
        source,
    };
    let wanted = vm.console().wanted();
    let mut input = Input::new();
    // Who has asked for the end, and what that makes of it.
    let mut wish = None;
    loop {
        let (ended, wanted_fd) = (vm.ended(), wanted.as_fd());
        let look = console.follow_foreground();
        let stdin = stdin();
        let keys = console.has_keys();
        let reads = (keys || !console.has_terminal()) && input.wants_more(keys);
        let slots = [
            Slot::readable(ended),
            Slot::readable(console.signals.as_fd()),
            Slot::readable(wanted_fd),
            // Its end closes the pipe. The kernel's signal does not come if it is killed while this process changes its
            // user: the first thread, which may send it, is gone when it is asked for, and others may still be ending.
            match &console.supervisor {
                Some(supervisor) => Slot::readable(supervisor.as_fd()),
                None => Slot::NOTHING,
            },
            match reads {
                true => Slot::readable(stdin),
                false => Slot::NOTHING,
            },
        ];
        let dues = [stopping.due(), silence.due(), look];
        let due = dues.into_iter().flatten().min();
        let until = due.map_or(Until::Forever, Until::after);
        let [ended, signalled, wants, alone, readable] = wait::any(slots, until).map_err(host)?;
        if ended {
            let reason = vm.wait()?;
            return Ok(match wish {
                // That the service has ended is what was wanted.
                Some(End::Escape) => End::Escape,
                _ => End::Guest(reason),
            });
        }
        let mut asked = None;
        if signalled {
            let signal = console.signals.next().map_err(host)?;
            match signal {
                None => {}
                Some(libc::SIGUSR1) => on_usr1(),
                Some(libc::SIGTSTP | libc::SIGCONT) if console.supervisor.is_some() => {}
                Some(libc::SIGTSTP) => console.suspend(),
                Some(libc::SIGCONT) => console.resume(),
                Some(libc::SIGQUIT) => return Ok(End::Signal(libc::SIGQUIT)),
                Some(signal) => asked = Some(End::Signal(signal)),
            }
            if let Some(libc::SIGTSTP | libc::SIGCONT) = signal {
                silence.begin_again();
            }
        }
        if alone {
            return Ok(End::Signal(libc::SIGKILL));
        }
        silence.look(vm);
        if wants {
            wanted.take();
        }
        if readable && input.read(keys) {
            asked = Some(End::Escape);
        }
        input.pass_on(|bytes| vm.console().send(bytes));
        let answer = match asked {
            Some(end) => {
                wish = Some(end);
                stopping.ask(vm)
            }
            None => stopping.go_on(vm),
        };
        if let (Answer::Cut, Some(end)) = (answer, wish) {
            return Ok(end);
        }
    }
}
