//! The process that a user starts, when the VM has another one: it keeps what must outlive the VM or must not
//! be within its reach, and clears it away.
//!
//! The supervisor holds networks (taps, addresses, published ports), the VM's share of the host with its cgroup,
//! the terminal's modes and the files that statistics go to. Its child builds and runs the VM. If the supervisor
//! is killed, so is its child.

use super::boot::Confinement;
use super::console::Console;
use super::input::Keys;
use super::stats::{Passed, StatsSink, StatsSource};
use super::{FAILED, Failed, Outcome};
use crate::host::cgroup::{Cgroup, OutOfMemory};
use crate::host::ledger::Share;
use crate::host::net::{Endpoint, Network};
use crate::host::process::{self, Child, Ended, Fork, Lifeline};
use crate::host::rights;
use crate::host::whole_file::WholeFile;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::stdio::stdin;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Who asks for the end again after this long does not want to wait for it. (`timeout`, for one, sends its
/// signal twice at once.)
const PATIENCE: Duration = Duration::from_secs(1);

/// What whoever attends a VM holds for it.
pub(super) struct Held {
    pub networks: Vec<Network>,
    pub share: Option<Share>,
    /// Where statistics go.
    pub stats: Option<WholeFile>,
}

/// What the VM's process is given.
pub(super) struct Given {
    pub console: Console,
    pub endpoints: Vec<Endpoint>,
    /// The process is in it already; its threads can be put further down.
    pub cgroup: Option<Cgroup>,
    pub stats: StatsSink,
    pub lifeline: Lifeline,
}

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
    } = held;
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
            drop((source, keys));
            console
                .leave_terminal(their_keys)
                .map_err(|error| Failed::new(format!("the terminal cannot be left: {error}")))?;
            let endpoints = networks.iter().map(|net| net.endpoint().clone()).collect();
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
            });
        }
    };
    drop((sink, their_keys));
    // Its threads lay their rights down by themselves, and one takes another user, which takes a right.
    let served = networks.iter_mut().try_for_each(Network::serve);
    if let Err(error) = rights::keep_those_of_the_end() {
        log::warn!("the supervisor keeps rights that it does not need: {error}");
    }
    if let Err(error) = served {
        let _ = child.signal(Signal::KILL);
        let _ = child.wait();
        return Err(crate::Error::from(error).into());
    }
    let ended = attend(child, &mut console, keys, source.as_mut())
        .map_err(|error| Failed::new(format!("the VM's process is lost: {error}")))?;
    drop(console);
    drop(networks);
    let code = match ended {
        Ended::Exited(code) => code,
        Ended::Killed(signal) => {
            killed(signal, share.as_ref()).print();
            128 + signal as u8
        }
    };
    // Success means that all is there that was asked for.
    let unwritten = source.is_some_and(|source| source.has_failed());
    Ok(if code == 0 && unwritten { FAILED } else { code })
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
        None => Failed::new(format!("the VM's process was killed by signal {signal}")),
    }
}

/// The exit code of a VM's process that was asked to end.
const ASKED: u8 = 128 + libc::SIGTERM as u8;

/// Passes signals and keys on to the child, and its statistics to their file, until it has ended.
fn attend(
    child: Child,
    console: &mut Console,
    mut keys: Option<Keys>,
    mut stats: Option<&mut StatsSource>,
) -> std::io::Result<Ended> {
    let mut told_to_end: Option<Instant> = None;
    let mut escaped = false;
    loop {
        let stdin = stdin();
        let source = stats.as_deref().map(AsFd::as_fd);
        let read = keys
            .as_ref()
            .filter(|keys| keys.wants_more() && console.has_keys());
        let full = keys.as_ref().and_then(Keys::full);
        // What is not there is not waited for.
        let or_nothing = |fd: Option<_>, flags| match fd {
            Some(fd) => (fd, flags),
            None => (child.as_fd(), PollFlags::empty()),
        };
        let mut fds = [
            (child.as_fd(), PollFlags::IN),
            (console.signals().as_fd(), PollFlags::IN),
            or_nothing(source, PollFlags::IN),
            or_nothing(read.map(|_| stdin), PollFlags::IN),
            or_nothing(full, PollFlags::OUT),
        ]
        .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [ended, _, _, pressed, room] = fds.map(|fd| !fd.revents().is_empty());
        let passed = stats.as_deref_mut().map(StatsSource::pass_on);
        if passed == Some(Passed::Last) {
            stats = None;
        }
        if ended {
            // What was sent before the end is there now, and no more comes.
            while let Some(Passed::One) = stats.as_deref_mut().map(StatsSource::pass_on) {}
            return Ok(match child.wait()? {
                Ended::Exited(ASKED) if escaped => Ended::Exited(0),
                ended => ended,
            });
        }
        if let Some(keys) = &mut keys {
            if pressed && keys.read() {
                escaped = true;
                child.signal(Signal::TERM)?;
            }
            if room {
                keys.pass_on();
            }
        }
        while let Some(signal) = console.signals().next()? {
            pass_on(signal, &child, console, &mut told_to_end)?;
        }
    }
}

fn pass_on(
    signal: libc::c_int,
    child: &Child,
    console: &mut Console,
    told_to_end: &mut Option<Instant>,
) -> std::io::Result<()> {
    match signal {
        libc::SIGUSR1 => child.signal(Signal::USR1),
        // A VM in the jail does not belong to the terminal's jobs: it stops with this process, and goes on with it.
        libc::SIGTSTP => {
            child.signal(Signal::STOP)?;
            console.suspend();
            child.signal(Signal::CONT)
        }
        libc::SIGCONT => {
            console.resume();
            child.signal(Signal::CONT)
        }
        _ if told_to_end.is_some_and(|at| at.elapsed() > PATIENCE) => child.signal(Signal::KILL),
        _ => {
            told_to_end.get_or_insert_with(Instant::now);
            child.signal(Signal::from_named_raw(signal).unwrap_or(Signal::TERM))
        }
    }
}
