//! The process that a user starts, when the VM has another one: it keeps what must outlive the VM or must not
//! be within its reach, and clears it away.
//!
//! The supervisor holds networks (taps, addresses, published ports), the host's sockets, the VM's share of the host with
//! its cgroup, the terminal's modes and the files that statistics go to. Its child builds and runs the VM. If the supervisor
//! is killed, so is its child.

use crate::Error;
use crate::attended::{Attended, Fate, Limits, Wish};
use crate::confinement::Confinement;
use crate::console::{Console, Keys};
use crate::network_service::NetworkService;
use crate::networks::{far_ends, interfaces};
use crate::origin::Origin;
use crate::pager::WatchedPager;
use crate::reports::{Outputs, Reports, StatsSink, TheirOutputs};
use crate::upstream::Upstream;
use crate::vsock::Sockets;
use kvmlet_control::Channel;
use kvmlet_host::net::{Network, take_down};
use kvmlet_host::shares::cgroup::{Cgroup, OutOfMemory};
use kvmlet_host::shares::ledger::Share;
use kvmlet_host::walls::rights;
use kvmlet_spec::{Dialect, Outcome, Reason};
use kvmlet_sys::process::{self, Ended, Fork, Lifeline};
use kvmlet_sys::seccomp;
use kvmlet_vmm::vm::FarEnds;
use rustix::process::{Resource, Signal, getrlimit};
use std::io;
use std::os::fd::OwnedFd;

/// What whoever attends a VM holds for it.
pub(crate) struct Held<'a> {
    pub networks: Vec<Network>,
    pub sockets: Option<Sockets>,
    pub share: Option<Share>,
    /// Where statistics go.
    pub stats: Option<StatsSink>,
    pub upstream: &'a mut Upstream,
    pub limits: Limits,
    /// What it goes on from, if it does.
    pub origin: Option<Origin>,
    /// Who has its memory, if somebody else has.
    pub pager: Option<WatchedPager>,
    pub dialect: Dialect,
}

/// What the VM's process is given.
pub(crate) struct Given {
    pub console: Console,
    pub far_ends: FarEnds,
    /// The process is in it already; its threads can be put further down.
    pub cgroup: Option<Cgroup>,
    pub lifeline: Lifeline,
}

/// Runs `vmm` in a child of this process, in which it may confine itself, and returns in this one when all is cleared
/// away. What `vmm` returns is the child's exit code; what is to be known of it, it tells by the channel.
pub(crate) fn supervise(
    mut console: Console,
    held: Held<'_>,
    confinement: Option<&Confinement>,
    vmm: impl FnOnce(Channel, Result<Given, Error>) -> u8,
) -> Result<Outcome, Error> {
    let Held {
        mut networks,
        mut sockets,
        share,
        stats,
        upstream,
        limits,
        origin,
        mut pager,
        dialect,
    } = held;
    let host = |what| move |source| Error::Host { what, source };
    // Its end tells each process that the other one has ended.
    let (channel, theirs) = Channel::pair().map_err(host("a socket to the VM's process"))?;
    // Files are of no harm to a process that may write others, and it may ask for room.
    let outputs = confinement.is_some().then(Outputs::of_vm).transpose();
    let outputs = outputs.map_err(host("a pipe for the guest's output"))?;
    let (outputs, their_outputs) = outputs.unzip();
    let keys = console.has_terminal().then(Keys::new).transpose()?;
    let (keys, their_keys) = keys.unzip();
    let cgroup = share.as_ref().and_then(Share::cgroup);
    let domain = cgroup.and_then(Cgroup::domain);
    let forked = match confinement {
        Some(confinement) => confinement.fork(domain)?,
        None => process::fork(0, domain).map_err(host("a process for the VM"))?,
    };
    let child = match forked {
        Fork::Parent(child) => child,
        Fork::Child(lifeline) => {
            upstream.close();
            drop((channel, stats, keys, outputs, origin, pager));
            let leaving = Leaving {
                console,
                outputs: their_outputs,
                keys: their_keys,
                networks,
                sockets,
                share,
            };
            process::end(vmm(theirs, leaving.leave(lifeline)));
        }
    };
    drop((theirs, their_keys, their_outputs));
    let mut service = match serve(&mut networks, sockets.as_mut()) {
        Ok(service) => service,
        Err(error) => {
            let _ = child.signal(Signal::KILL);
            let _ = child.wait();
            return Err(error);
        }
    };
    let process = child.pid();
    let published = crate::published(&networks).map(ToString::to_string);
    let interfaces = interfaces(&networks);
    upstream.attend(process, published.collect(), interfaces);
    let mut reports = Reports::new(outputs, channel, stats);
    let attended = Attended::new(
        child,
        &mut console,
        keys,
        &mut reports,
        upstream,
        &mut service,
        limits,
    );
    let attended = attended.fed_by(pager.as_mut());
    let fate = attended.until_end().map_err(Error::Lost)?;
    let fate = fate.ok_or(Error::Stuck {
        process: process.as_raw_pid(),
    })?;
    drop(console);
    let watches = service.end();
    // Its thread ends with it.
    drop(sockets);
    take_down(networks, watches);
    let mut outcome = outcome(fate, reports.outcome(), share.as_ref(), dialect);
    if let (Some(Wish::Unfed), Some(pager), Reason::Failed) = (fate.wish, &pager, outcome.reason) {
        outcome = outcome.failure(pager.failure(dialect));
    }
    Ok(match origin {
        Some(origin) => origin.explain(outcome, dialect),
        None => outcome,
    })
}

/// Begins to serve, and lays down what that takes and nothing later does.
fn serve(networks: &mut [Network], sockets: Option<&mut Sockets>) -> Result<NetworkService, Error> {
    // A process for strangers takes another user, which takes a right.
    let service = NetworkService::start(networks)?;
    if let Err(error) = rights::attend() {
        log::warn!("the supervisor may make system calls that it has no use for: {error}");
    }
    if let Err(error) = rights::keep_those_of_the_end() {
        log::warn!("the supervisor keeps rights that it does not need: {error}");
    }
    // With sockets it has a second thread.
    if let Some(sockets) = sockets {
        sockets.serve()?;
    }
    Ok(service)
}

/// What a VM's process has of its supervisor when it is forked, and leaves to it.
struct Leaving {
    console: Console,
    outputs: Option<TheirOutputs>,
    keys: Option<OwnedFd>,
    networks: Vec<Network>,
    sockets: Option<Sockets>,
    share: Option<Share>,
}

impl Leaving {
    /// What the process keeps.
    fn leave(self, lifeline: Lifeline) -> Result<Given, Error> {
        let mut console = self.console;
        let leave = |what| move |source| Error::Leave { what, source };
        let outputs = self.outputs.map_or(Ok(()), TheirOutputs::put_in_place);
        outputs.map_err(leave("files"))?;
        let left: io::Result<()> = console.leave_terminal(self.keys);
        left.map_err(leave("the terminal"))?;
        let far_ends = far_ends(&self.networks, self.sockets.as_ref());
        self.networks.into_iter().for_each(Network::abandon);
        if let Some(sockets) = self.sockets {
            sockets.abandon();
        }
        let cgroup = self.share.and_then(Share::abandon);
        if let Some(cgroup) = &cgroup {
            cgroup.join()?;
        }
        Ok(Given {
            console,
            far_ends,
            cgroup,
            lifeline,
        })
    }
}

/// How a run has ended, by what the kernel and the VM's process say of it. A process whose guest has taken it over may
/// say anything of its guest, and nothing of what the kernel knows.
fn outcome(fate: Fate, told: Option<Outcome>, share: Option<&Share>, dialect: Dialect) -> Outcome {
    let wished = |wish| match wish {
        Wish::Signal(signal) => Outcome::new(Reason::Signal).signal(signal),
        Wish::Escape => Outcome::new(Reason::Escape),
        Wish::Order => Outcome::new(Reason::Stopped),
        Wish::Unfed => Outcome::new(Reason::Failed),
    };
    match (fate.ended, fate.wish, told) {
        (Ended::Killed(_), Some(wish), _) if !fate.in_time => wished(wish),
        (Ended::Killed(signal), _, _) => {
            let failure = killed(signal, share).told_in(dialect);
            Outcome::new(Reason::Killed).failure(failure).signal(signal)
        }
        (Ended::Exited(seccomp::EXIT_CODE), _, _) => Outcome::new(Reason::Forbidden),
        (Ended::Exited(code), _, None) => Error::Untold { code }.outcome_in(dialect),
        (_, _, Some(told)) if told.reason == Reason::Failed => told,
        // That the service has ended is what was wanted, with whatever code.
        (_, Some(Wish::Escape), Some(_)) => wished(Wish::Escape),
        (_, Some(wish), Some(told)) if told.reason == Reason::Stopped => wished(wish),
        (_, _, Some(told)) => told,
    }
}

/// Why a VM's process was killed.
fn killed(signal: libc::c_int, share: Option<&Share>) -> Error {
    match share
        .and_then(Share::cgroup)
        .and_then(Cgroup::out_of_memory)
    {
        Some(OutOfMemory::Limit(limit)) => Error::MemoryLimit {
            bytes: limit.bytes(),
        },
        Some(OutOfMemory::Host) => Error::OutOfMemory,
        None => Error::Killed {
            signal,
            cpu_seconds: getrlimit(Resource::Cpu).current,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(ended: Ended, wish: Option<Wish>) -> Fate {
        Fate {
            ended,
            wish,
            in_time: true,
        }
    }

    #[test]
    fn a_panic_is_told_from_a_service_that_ends_with_its_code() {
        let exited = fate(Ended::Exited(0), None);
        let service = Outcome::new(Reason::Shutdown).code(134);
        for told in [service, Outcome::new(Reason::Panic)] {
            assert_eq!(
                outcome(exited, Some(told.clone()), None, Dialect::File),
                told
            );
        }
    }

    #[test]
    fn what_the_kernel_knows_counts_more_than_what_is_told() {
        let good = || Some(Outcome::new(Reason::Shutdown).code(0));
        let reason = |ended| outcome(fate(ended, None), good(), None, Dialect::File).reason;
        assert_eq!(reason(Ended::Exited(seccomp::EXIT_CODE)), Reason::Forbidden);
        assert_eq!(reason(Ended::Killed(libc::SIGSEGV)), Reason::Killed);
        let silent = outcome(fate(Ended::Exited(3), None), None, None, Dialect::File);
        assert_eq!(silent.reason, Reason::Failed);
        let failure = silent.failure.unwrap();
        assert!(failure.message.contains("code 3"), "{failure}");
    }

    #[test]
    fn whoever_wanted_the_end_is_told_as_its_reason_where_power_was_cut() {
        let told = |reason| Some(Outcome::new(reason));
        let exited = |wish| fate(Ended::Exited(0), Some(wish));
        let term = Wish::Signal(libc::SIGTERM);
        let cut = outcome(exited(term), told(Reason::Stopped), None, Dialect::File);
        assert_eq!((cut.reason, cut.signal), (Reason::Signal, Some(15)));
        let cut = outcome(
            exited(Wish::Order),
            told(Reason::Stopped),
            None,
            Dialect::File,
        );
        assert_eq!(cut.reason, Reason::Stopped);
        // A guest that has listened has ended by itself.
        let heard = outcome(exited(term), told(Reason::Shutdown), None, Dialect::File);
        assert_eq!(heard.reason, Reason::Shutdown);
        let escaped = outcome(
            exited(Wish::Escape),
            told(Reason::Shutdown),
            None,
            Dialect::File,
        );
        assert_eq!(escaped.reason, Reason::Escape);
        let failed = outcome(
            exited(Wish::Escape),
            told(Reason::Failed),
            None,
            Dialect::File,
        );
        assert_eq!(failed.reason, Reason::Failed);
        let late = Fate {
            in_time: false,
            ..fate(Ended::Killed(libc::SIGKILL), Some(term))
        };
        assert_eq!(
            outcome(late, None, None, Dialect::File).reason,
            Reason::Signal
        );
    }
}
