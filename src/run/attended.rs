//! The supervisor's turn: a VM's process, watched until it has ended, or cannot.

use crate::console::{Console, Keys};
use crate::network_service::NetworkService;
use crate::reports::Reports;
use crate::stopping::{AT_ONCE, POWERING_OFF};
use crate::supervisor::FAILED;
use kvmlet_sys::first_thread;
use kvmlet_sys::interrupt;
use kvmlet_sys::process::{Child, Ended};
use kvmlet_sys::seccomp;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::process::Signal;
use rustix::stdio::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// What is waited for on the supervisor's own behalf.
const OWN: usize = 8;
/// What a VM's process takes to cut its guest's power.
const CUT: Duration = Duration::from_secs(1);
/// What it takes to end once it is killed, unless it waits for a device that hangs.
const KILLED: Duration = Duration::from_secs(10);

/// What a VM's process has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has ended by itself, with this code.
    Exited(u8),
    /// Whoever was at its terminal wanted the end, and has it.
    Escaped,
    /// Somebody sent the supervisor this signal, and it did not end in time by itself, or had not started.
    Ended(libc::c_int),
    /// Somebody else has killed it, by this signal.
    Killed(libc::c_int),
}

/// A VM's process, and what has become of the wish for its end.
pub(crate) struct Attended {
    child: Child,
    /// When it is looked whether it can still end.
    next_look: Instant,
    /// Its first thread has ended, and it had not at the last look.
    lingers: bool,
    /// Ends when the VM runs.
    started: Option<OwnedFd>,
    /// How long it has to end once it is asked.
    patience: Duration,
    ending: Option<Ending>,
    /// The escape key was pressed.
    escaped: bool,
}

struct Ending {
    /// The signal that asked for it first.
    signal: libc::c_int,
    asked: Instant,
    /// When it is killed, or given up.
    deadline: Instant,
    killed: bool,
}

impl Attended {
    /// A child whose `started` ends when its VM runs, and whose guest has that long to end once it is asked.
    pub fn new(child: Child, started: OwnedFd, stop_timeout: Duration) -> Self {
        Self {
            child,
            next_look: Instant::now() + KILLED,
            lingers: false,
            started: Some(started),
            patience: stop_timeout.saturating_add(POWERING_OFF + CUT),
            ending: None,
            escaped: false,
        }
    }

    /// Passes signals and keys on to the child, and what it writes and its statistics to their files, until it has
    /// ended. None when it does not, though it should have.
    pub fn until_end(
        mut self,
        console: &mut Console,
        mut keys: Option<Keys>,
        reports: &mut Reports,
        service: &mut NetworkService,
    ) -> std::io::Result<Option<Fate>> {
        // What has ended a wait since the start was last looked at is not read again.
        if let Some(signal) = interrupt::interrupted_by() {
            self.pass_on(signal, console)?;
        }
        loop {
            let look = console.follow_foreground();
            let stdin = stdin();
            let read = keys
                .as_ref()
                .filter(|keys| keys.wants_more() && console.has_keys());
            let full = keys.as_ref().and_then(Keys::full);
            let [out, err, stats] = reports.fds();
            let readable = |fd: Option<_>| fd.map_or(Slot::NOTHING, Slot::readable);
            let own: [Slot<'_>; OWN] = [
                Slot::readable(self.child.as_fd()),
                Slot::readable(console.signals().as_fd()),
                readable(read.map(|_| stdin)),
                full.map_or(Slot::NOTHING, Slot::writable),
                readable(self.started.as_ref().map(AsFd::as_fd)),
                readable(out),
                readable(err),
                readable(stats),
            ];
            let mut slots: Vec<Slot<'_>> = own.into_iter().chain(service.slots()).collect();
            let theirs = service.due();
            let due = self.due(look);
            let due = theirs.map_or(due, |theirs| due.min(theirs));
            wait::any_of(&mut slots, Until::Deadline(due))?;
            let (own, others) = slots.split_at(OWN);
            let serves =
                theirs.is_some_and(|at| at <= Instant::now()) || others.iter().any(Slot::is_ready);
            let ready = |index: usize| own.get(index).is_some_and(Slot::is_ready);
            let [ended, _, pressed, room, started] = [0, 1, 2, 3, 4].map(ready);
            if serves && !ended {
                service.turn();
            }
            reports.pass_on();
            if ended {
                reports.finish();
                return self.fate().map(Some);
            }
            if started {
                self.started = None;
            }
            if let Some(keys) = &mut keys {
                if pressed && keys.read() {
                    self.escaped = true;
                    self.end(libc::SIGTERM)?;
                }
                if room {
                    keys.pass_on();
                }
            }
            while let Some(signal) = console.signals().next()? {
                self.pass_on(signal, console)?;
            }
            self.kill_when_late()?;
            if self.is_given_up() {
                return Ok(None);
            }
        }
    }

    /// How the child has ended, as its user wanted it.
    fn fate(self) -> std::io::Result<Fate> {
        let ended = self.child.wait()?;
        Ok(match (ended, self.ending) {
            // A VM that could not end in time, or had not started.
            (Ended::Killed(libc::SIGKILL), Some(ending)) if ending.killed => match self.escaped {
                true => Fate::Escaped,
                false => Fate::Ended(ending.signal),
            },
            // Whoever wanted the end has it, with whatever code.
            (Ended::Exited(code), Some(_)) if self.escaped && !OWN_ENDS.contains(&code) => {
                Fate::Escaped
            }
            (Ended::Exited(code), _) => Fate::Exited(code),
            (Ended::Killed(signal), _) => Fate::Killed(signal),
        })
    }

    fn pass_on(&mut self, signal: libc::c_int, console: &mut Console) -> std::io::Result<()> {
        match signal {
            libc::SIGUSR1 => self.child.signal(Signal::USR1),
            // A VM in the jail does not belong to the terminal's jobs: it stops with this process, and goes on with it.
            libc::SIGTSTP => {
                self.child.signal(Signal::STOP)?;
                console.suspend();
                self.child.signal(Signal::CONT)
            }
            libc::SIGCONT => {
                console.resume();
                self.child.signal(Signal::CONT)
            }
            _ => self.end(signal),
        }
    }

    /// Somebody wants the end. Until the VM runs there is nothing that it could lose, and no waiting for a file or for
    /// memory keeps its process from being killed.
    fn end(&mut self, signal: libc::c_int) -> std::io::Result<()> {
        let now = Instant::now();
        let ending = self.ending.get_or_insert(Ending {
            signal,
            asked: now,
            deadline: now + self.patience,
            killed: false,
        });
        if ending.killed {
            return Ok(());
        }
        if self.started.is_some() {
            ending.deadline = now;
            return Ok(());
        }
        if now.saturating_duration_since(ending.asked) >= AT_ONCE {
            // It is the second time.
            ending.deadline = ending.deadline.min(now + CUT);
        }
        let signal = Signal::from_named_raw(signal).unwrap_or(Signal::TERM);
        self.child.signal(signal)
    }

    fn kill_when_late(&mut self) -> std::io::Result<()> {
        let now = Instant::now();
        match &mut self.ending {
            Some(ending) if !ending.killed && now >= ending.deadline => {
                ending.killed = true;
                ending.deadline = now + KILLED;
                self.child.signal(Signal::KILL)
            }
            _ => Ok(()),
        }
    }

    /// It was killed, or has ended by itself as far as it could, and its time to be gone is up.
    fn is_given_up(&mut self) -> bool {
        let now = Instant::now();
        let killed = self.ending.as_ref().filter(|ending| ending.killed);
        if killed.is_some_and(|ending| now >= ending.deadline) {
            return true;
        }
        if now < self.next_look {
            return false;
        }
        self.next_look = now + KILLED;
        let lingered = self.lingers;
        self.lingers = first_thread::has_ended(self.child.pid());
        lingered && self.lingers
    }

    /// When something is due, `look` among it.
    fn due(&self, look: Option<Duration>) -> Instant {
        let ending = self.ending.as_ref().map(|ending| ending.deadline);
        let look = look.map(|look| Instant::now() + look);
        let due = [ending, look].into_iter().flatten().min();
        due.map_or(self.next_look, |due| due.min(self.next_look))
    }
}

/// Exit codes of a VM's process that are not its guest's: it failed, or made a forbidden system call.
const OWN_ENDS: [u8; 2] = [FAILED, seccomp::EXIT_CODE];
