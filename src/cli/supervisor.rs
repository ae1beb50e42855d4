//! The process that a user starts, when the VM has another one: it keeps what must outlive the VM or must not
//! be within its reach, and clears it away.
//!
//! The supervisor holds networks (taps, addresses, published ports), the VM's share of the host with its cgroup,
//! the terminal's modes and the files that statistics go to. Its child builds and runs the VM. If the supervisor
//! is killed, so is its child.

use super::boot::Confinement;
use super::console::Console;
use super::input::Keys;
use super::output::{Outputs, TheirOutputs};
use super::stats::{Passed, StatsSink, StatsSource};
use super::stopping::{AT_ONCE, POWERING_OFF};
use super::{ExitCode, Failed, Outcome};
use crate::host::cgroup::{Cgroup, OutOfMemory};
use crate::host::ledger::Share;
use crate::host::net::Network;
use crate::host::process::{self, Child, Ended, Fork, Lifeline};
use crate::host::rights;
use crate::host::whole_file::WholeFile;
use crate::run;
use crate::vm::Endpoint;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Signal, getrlimit};
use rustix::stdio::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// What a VM's process takes to cut its guest's power.
const CUT: Duration = Duration::from_secs(1);
/// What it takes to end once it is killed, unless it waits for a device that hangs.
const KILLED: Duration = Duration::from_secs(10);

/// What whoever attends a VM holds for it.
pub(super) struct Held {
    pub networks: Vec<Network>,
    pub share: Option<Share>,
    /// Where statistics go.
    pub stats: Option<WholeFile>,
    /// How long the guest's service may take to end.
    pub stop_timeout: Duration,
}

/// What the VM's process is given.
pub(super) struct Given {
    pub console: Console,
    pub endpoints: Vec<Endpoint>,
    /// The process is in it already; its threads can be put further down.
    pub cgroup: Option<Cgroup>,
    pub stats: StatsSink,
    pub lifeline: Lifeline,
    /// To be dropped when the VM runs and is attended.
    pub starting: Starting,
}

/// While this lives, in the VM's process, the VM starts: nobody there looks at signals.
pub(super) struct Starting(#[expect(dead_code)] OwnedFd);

/// Runs `vmm` in a child of this process, in which it may confine itself, and returns when all is cleared away:
/// in the supervisor how the child has ended, in the child what `vmm` returns.
pub(super) fn supervise(
    mut console: Console,
    held: Held,
    confinement: Option<&Confinement>,
    vmm: impl FnOnce(Given) -> Outcome,
) -> Outcome {
    let Held {
        mut networks,
        share,
        stats,
        stop_timeout,
    } = held;
    let pipe = || {
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| crate::Error::Host {
            what: "a pipe to the VM's process",
            source: error.into(),
        })
    };
    let (started, starting) = pipe()?;
    // Nothing is ever written to it: it tells the VM that this process has ended.
    let (supervisor, alive) = pipe()?;
    // Files are of no harm to a process that may write others, and it may ask for room.
    let outputs = confinement.is_some().then(Outputs::of_vm).transpose();
    let (mut outputs, their_outputs) = outputs
        .map_err(|source| crate::Error::Host {
            what: "a pipe for the guest's output",
            source,
        })?
        .unzip();
    let pair = stats.map(StatsSource::pair).transpose();
    let (mut source, sink) = pair
        .map_err(|error| Failed::new(format!("no channel for statistics: {error}")))?
        .unzip();
    let keys = console.has_terminal().then(Keys::new).transpose()?;
    let (keys, their_keys) = keys.unzip();
    let cgroup = share.as_ref().and_then(Share::cgroup);
    let domain = cgroup.and_then(Cgroup::domain);
    let forked = match confinement {
        Some(confinement) => confinement.fork(domain)?,
        None => process::fork(0, domain)
            .map_err(|error| Failed::new(format!("no process for the VM: {error}")))?,
    };
    let child = match forked {
        Fork::Parent(child) => child,
        Fork::Child(lifeline) => {
            drop((source, keys, started, outputs, alive));
            their_outputs
                .map_or(Ok(()), TheirOutputs::put_in_place)
                .map_err(|error| Failed::new(format!("files cannot be left: {error}")))?;
            console
                .leave_terminal(supervisor, their_keys)
                .map_err(|error| Failed::new(format!("the terminal cannot be left: {error}")))?;
            let endpoints = run::endpoints(&networks);
            networks.into_iter().for_each(Network::abandon);
            let cgroup = share.and_then(Share::abandon);
            if let Some(cgroup) = &cgroup {
                cgroup.join().map_err(Failed::new)?;
            }
            return vmm(Given {
                console,
                endpoints,
                cgroup,
                stats: sink.unwrap_or(StatsSink::Nowhere),
                lifeline,
                starting: Starting(starting),
            });
        }
    };
    drop((sink, their_keys, starting, their_outputs, supervisor));
    if let Err(error) = rights::attend() {
        log::warn!("the supervisor may make system calls that it has no use for: {error}");
    }
    // Its threads lay their rights down by themselves, and one takes another user, which takes a right.
    let served = networks.iter_mut().try_for_each(Network::serve);
    if let Err(error) = rights::keep_those_of_the_end() {
        log::warn!("the supervisor keeps rights that it does not need: {error}");
    }
    if let Err(error) = served {
        let _ = child.signal(Signal::KILL);
        let _ = child.wait();
        return Err(run::Error::from(error).into());
    }
    let attended = Attended {
        child,
        started: Some(started),
        patience: stop_timeout.saturating_add(POWERING_OFF + CUT),
        ending: None,
        escaped: false,
    };
    let ended = attended
        .until_end(&mut console, keys, outputs.as_mut(), source.as_mut())
        .map_err(|error| Failed::new(format!("the VM's process is lost: {error}")))?;
    drop(console);
    drop(networks);
    drop(alive);
    let code = match ended {
        Ended::Exited(code) => code,
        Ended::Killed(signal) => {
            killed(signal, share.as_ref()).print();
            ExitCode::Signal(signal).number()
        }
    };
    // Success means that all is there that was asked for.
    let unwritten = source.is_some_and(|source| source.has_failed());
    Ok(match code == ExitCode::Done.number() && unwritten {
        true => ExitCode::Failed.number(),
        false => code,
    })
}

fn killed(signal: i32, share: Option<&Share>) -> Failed {
    match share.and_then(Share::cgroup).and_then(Cgroup::out_of_memory) {
        Some(OutOfMemory::Limit(limit)) => Failed::new(format!(
            "the VM was killed because it took more memory than its limit of {:.1} MiB",
            limit.bytes() as f64 / f64::from(1 << 20)
        ))
        .help(
            "that is guest RAM and what kvmlet may need beside; if it happens again, report it as a bug of kvmlet",
        ),
        Some(OutOfMemory::Host) => Failed::new(
            "the VM was killed because this host, or a cgroup that kvmlet was started in, ran out of memory",
        )
        .help("end other programs, or ask for less with --memory"),
        None => {
            let failed = Failed::new(format!("the VM's process was killed by signal {signal}"));
            match (signal, getrlimit(Resource::Cpu).current) {
                (libc::SIGXCPU | libc::SIGKILL, Some(seconds)) => failed.help(format!(
                    "its CPU time is limited to {seconds} s, which may be used up: allow it more (`ulimit -t`, or \
                     LimitCPU= of a service)"
                )),
                (libc::SIGKILL, None) => failed.help(
                    "somebody killed it, or this host ran out of memory, which `dmesg` tells",
                ),
                _ => failed,
            }
        }
    }
}

/// A VM's process, and what has become of the wish for its end.
struct Attended {
    child: Child,
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
    /// Passes signals and keys on to the child, and what it writes and its statistics to their files, until it has
    /// ended.
    fn until_end(
        mut self,
        console: &mut Console,
        mut keys: Option<Keys>,
        mut outputs: Option<&mut Outputs>,
        mut stats: Option<&mut StatsSource>,
    ) -> std::io::Result<Ended> {
        loop {
            let look = console.follow_foreground();
            let stdin = stdin();
            let child = self.child.as_fd();
            let source = stats.as_deref().map(AsFd::as_fd);
            let read = keys
                .as_ref()
                .filter(|keys| keys.wants_more() && console.has_keys());
            let full = keys.as_ref().and_then(Keys::full);
            // What is not there is not waited for.
            let or_nothing = |fd: Option<_>, flags| match fd {
                Some(fd) => (fd, flags),
                None => (child, PollFlags::empty()),
            };
            let [out, err] = outputs.as_deref().map_or([None, None], Outputs::fds);
            let mut fds = [
                (child, PollFlags::IN),
                (console.signals().as_fd(), PollFlags::IN),
                or_nothing(source, PollFlags::IN),
                or_nothing(read.map(|_| stdin), PollFlags::IN),
                or_nothing(full, PollFlags::OUT),
                or_nothing(self.started.as_ref().map(AsFd::as_fd), PollFlags::IN),
                or_nothing(out, PollFlags::IN),
                or_nothing(err, PollFlags::IN),
            ]
            .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
            match poll(&mut fds, self.due(look).as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [ended, _, _, pressed, room, started, _, _] =
                fds.map(|fd| !fd.revents().is_empty());
            // Statistics may go to standard output, and come behind what the guest has written.
            if let Some(outputs) = outputs.as_deref_mut() {
                outputs.pass_on();
            }
            let passed = stats.as_deref_mut().map(StatsSource::pass_on);
            if passed == Some(Passed::Last) {
                stats = None;
            }
            if ended {
                // What was sent before the end is there now, and no more comes.
                if let Some(outputs) = outputs {
                    outputs.finish();
                }
                if let Some(stats) = stats {
                    stats.finish();
                }
                return self.ended();
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
        }
    }

    /// How the child has ended, as its user wanted it.
    fn ended(self) -> std::io::Result<Ended> {
        let ended = self.child.wait()?;
        Ok(match (ended, self.ending) {
            // A VM that could not end in time, or had not started.
            (Ended::Killed(libc::SIGKILL), Some(ending)) if ending.killed => match self.escaped {
                true => Ended::Exited(ExitCode::Done.number()),
                false => Ended::Exited(ExitCode::Signal(ending.signal).number()),
            },
            // Whoever wanted the end has it, with whatever code.
            (Ended::Exited(code), Some(_)) if self.escaped && !OWN_ENDS.contains(&code) => {
                Ended::Exited(ExitCode::Done.number())
            }
            (ended, _) => ended,
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
        let Some(ending) = &mut self.ending else {
            return Ok(());
        };
        let now = Instant::now();
        if now < ending.deadline {
            return Ok(());
        }
        if ending.killed {
            let text = "it was killed, and has not ended: it waits for something of this host";
            return Err(std::io::Error::other(text));
        }
        ending.killed = true;
        ending.deadline = now + KILLED;
        self.child.signal(Signal::KILL)
    }

    /// How long until something is due, `look` among it.
    fn due(&self, look: Option<Duration>) -> Option<Timespec> {
        let deadline = self.ending.as_ref().map(|ending| ending.deadline);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let next = [left, look].into_iter().flatten().min()?;
        Timespec::try_from(next).ok()
    }
}

/// Exit codes of a VM's process that are not its guest's: it failed, or made a forbidden system call.
const OWN_ENDS: [u8; 2] = [ExitCode::Failed.number(), ExitCode::Forbidden.number()];
