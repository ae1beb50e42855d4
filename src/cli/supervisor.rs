//! The process that a user starts, when the VM has another one: it keeps what must outlive the VM or must not
//! be within its reach, and clears it away.
//!
//! The supervisor holds networks (taps, addresses, published ports), the VM's share of the host with its cgroup,
//! the terminal's modes and the files that statistics go to. Its child builds and runs the VM. If the supervisor
//! is killed, so is its child.

use super::attended::Attended;
use super::boot::Confinement;
use super::console::Console;
use super::input::Keys;
use super::output::{Outputs, TheirOutputs};
use super::reports::Reports;
use super::stats::{StatsSink, StatsSource};
use super::{ExitCode, Failed, Outcome};
use crate::host::cgroup::{Cgroup, OutOfMemory};
use crate::host::ledger::Share;
use crate::host::net::Network;
use crate::host::process::{self, Ended, Fork, Lifeline};
use crate::host::rights;
use crate::host::whole_file::WholeFile;
use crate::run;
use crate::vm::Endpoint;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Signal, getrlimit};
use std::os::fd::OwnedFd;
use std::time::Duration;

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
    let (outputs, their_outputs) = outputs
        .map_err(|source| crate::Error::Host {
            what: "a pipe for the guest's output",
            source,
        })?
        .unzip();
    let pair = stats.map(StatsSource::pair).transpose();
    let (source, sink) = pair
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
    let pid = child.pid();
    let mut reports = Reports::new(outputs, source);
    let ended = Attended::new(child, started, stop_timeout)
        .until_end(&mut console, keys, &mut reports)
        .map_err(|error| Failed::new(format!("the VM's process is lost: {error}")))?
        .ok_or_else(|| stuck(pid))?;
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
    let unwritten = reports.has_failed();
    Ok(match code == ExitCode::Done.number() && unwritten {
        true => ExitCode::Failed.number(),
        false => code,
    })
}

/// The kernel keeps it until the request that it waits for is answered, whoever kills it.
fn stuck(process: Pid) -> Failed {
    let process = process.as_raw_nonzero();
    Failed::new(format!(
        "the VM has ended, but its process {process} has not: it waits for something of this host, most likely for a \
         disk that does not answer"
    ))
    .help(
        "what it holds (memory, disks, its share) is free again when that answers; the next `kvmlet boot` clears away \
         what is left of it then",
    )
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
