//! Between the user's terminal and the guest's: input, signals, and waiting for the end.

use super::terminal::Raw;
use crate::host::signals::Signals;
use crate::{Error, ExitReason, VmHandle};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::stdin;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Ctrl-], as in telnet and `virsh console`: ends the VM from the keyboard.
const ESCAPE: u8 = 0x1d;
/// Enough for a paste; what the guest has not taken yet waits here.
const INPUT_BYTES: usize = 4096;

/// How an attended VM ended.
pub(super) enum End {
    /// By itself.
    Guest(ExitReason),
    /// By the escape key.
    Escape,
    /// By a signal to kvmlet.
    Signal(libc::c_int),
}

/// This process's terminal and signals, taken over before the VM starts: so no key is echoed twice, and all
/// threads leave the signals to us.
pub(super) struct Console {
    signals: Signals,
    raw: Option<Raw>,
    /// Keys come one by one.
    interactive: bool,
    /// A terminal in whose foreground we are not must not be read: the kernel would stop us.
    readable: bool,
}

impl Console {
    /// Takes over the signals that end the VM cleanly and the one that asks for statistics, and the terminal
    /// if standard input is one. Dropping it restores the terminal.
    pub fn take() -> io::Result<Self> {
        let signals = Signals::take(&[
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGHUP,
            libc::SIGQUIT,
            libc::SIGUSR1,
        ])?;
        let raw = Raw::enter();
        Ok(Self {
            signals,
            interactive: raw.is_some(),
            readable: raw.is_some() || !rustix::termios::isatty(stdin()),
            raw,
        })
    }

    /// Is the user at a terminal that passes each key on?
    pub fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// The signals that this process is sent.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Leaves the terminal's restoration to the process that this one was forked from.
    pub fn disown_terminal(&mut self) {
        if let Some(raw) = self.raw.take() {
            raw.disown();
        }
    }

    /// Connects standard input to the guest until the VM ends or is told to. SIGUSR1 calls `on_usr1`.
    pub fn attend(&self, vm: &VmHandle, on_usr1: impl Fn()) -> Result<End, Error> {
        let mut input = Input {
            open: self.readable,
            escape: self.interactive,
            pending: Vec::new(),
        };
        let end = wait(vm, &self.signals, &mut input, on_usr1)?;
        if !matches!(end, End::Guest(_)) {
            vm.stop();
        }
        Ok(end)
    }
}

fn wait(
    vm: &VmHandle,
    signals: &Signals,
    input: &mut Input,
    on_usr1: impl Fn(),
) -> Result<End, Error> {
    let host = |source| Error::Host {
        what: "events",
        source,
    };
    let wanted = vm.console().wanted();
    loop {
        // SAFETY: both descriptors belong to `vm`, which outlives the borrow.
        let (ended, wanted_fd) = unsafe {
            (
                BorrowedFd::borrow_raw(vm.ended().as_raw_fd()),
                BorrowedFd::borrow_raw(wanted.as_raw_fd()),
            )
        };
        let stdin = stdin();
        let mut fds = vec![
            PollFd::from_borrowed_fd(ended, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(wanted_fd, PollFlags::IN),
        ];
        if input.wants_more() {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(host(error.into())),
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        if ready(0) {
            return vm.wait().map(End::Guest);
        }
        if ready(1) {
            match signals.next().map_err(host)? {
                Some(libc::SIGUSR1) => on_usr1(),
                Some(signal) => return Ok(End::Signal(signal)),
                None => {}
            }
        }
        if ready(2) {
            // Only resets the event.
            let _ = wanted.read();
        }
        if ready(3) && input.read() {
            return Ok(End::Escape);
        }
        input.pass_on(vm);
    }
}

/// Standard input on its way to the guest.
struct Input {
    open: bool,
    escape: bool,
    pending: Vec<u8>,
}

impl Input {
    /// Nothing is read before the guest has taken what there is: so a pipe's writer waits, and nothing grows.
    fn wants_more(&self) -> bool {
        self.open && self.pending.is_empty()
    }

    /// Reads what there is; true if the escape key was among it.
    fn read(&mut self) -> bool {
        let mut buffer = [0; INPUT_BYTES];
        match rustix::io::read(stdin(), &mut buffer) {
            Ok(0) => self.open = false,
            Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => {
                log::debug!("standard input ends: {error}");
                self.open = false;
            }
        }
        self.escape && self.pending.contains(&ESCAPE)
    }

    fn pass_on(&mut self, vm: &VmHandle) {
        if !self.pending.is_empty() {
            let taken = vm.console().send(&self.pending);
            self.pending.drain(..taken);
        }
    }
}
