//! The process that a user starts, when the VM has another one: it keeps what must outlive the VM or must not
//! be within its reach, and clears it away.
//!
//! The supervisor holds networks (taps, addresses, published ports), the VM's share of the host with its cgroup,
//! the terminal's modes and the files that statistics go to. Its child builds and runs the VM. If the supervisor
//! is killed, so is its child.

use crate::attended::{Attended, Fate};
use crate::confinement::Confinement;
use crate::console::{Console, Keys};
use crate::network_service::NetworkService;
use crate::networks::endpoints;
use crate::reports::{Outputs, Reports, StatsSink, StatsSource, TheirOutputs};
use crate::{Error, Tell};
use kvmlet_host::cgroup::{Cgroup, OutOfMemory};
use kvmlet_host::ledger::Share;
use kvmlet_host::net::Network;
use kvmlet_host::rights;
use kvmlet_sys::process::{self, Fork, Lifeline};
use kvmlet_sys::whole_file::WholeFile;
use kvmlet_vmm::vm::Endpoint;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Signal, getrlimit};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The exit code of a VM's process that has failed.
pub(crate) const FAILED: u8 = 125;

/// What whoever attends a VM holds for it.
pub(crate) struct Held {
    pub networks: Vec<Network>,
    pub share: Option<Share>,
    /// Where statistics go.
    pub stats: Option<WholeFile>,
    /// How long the guest's service may take to end.
    pub stop_timeout: Duration,
    pub tell: Tell,
}

/// What the VM's process is given.
pub(crate) struct Given {
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
pub(crate) struct Starting(#[expect(dead_code)] OwnedFd);

/// What has come of a VM's process.
pub(crate) struct Supervised {
    pub fate: Fate,
    /// The last statistics could not be written.
    pub unwritten: bool,
}

/// Runs `vmm` in a child of this process, in which it may confine itself, and returns in this one when all is cleared
/// away. What `vmm` returns is the child's exit code.
pub(crate) fn supervise(
    mut console: Console,
    held: Held,
    confinement: Option<&Confinement>,
    vmm: impl FnOnce(Result<Given, Error>) -> u8,
) -> Result<Supervised, Error> {
    let Held {
        mut networks,
        share,
        stats,
        stop_timeout,
        tell,
    } = held;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(Error::host("a pipe to the VM's process"));
    let (started, starting) = pipe()?;
    // Nothing is ever written to it: it tells the VM that this process has ended.
    let (supervisor, alive) = pipe()?;
    // Files are of no harm to a process that may write others, and it may ask for room.
    let outputs = confinement.is_some().then(Outputs::of_vm).transpose();
    let (outputs, their_outputs) = outputs
        .map_err(|source| Error::Host {
            what: "a pipe for the guest's output",
            source,
        })?
        .unzip();
    let pair = stats.map(|file| StatsSource::pair(file, tell)).transpose();
    let (source, sink) = pair
        .map_err(|source| Error::Host {
            what: "a channel for statistics",
            source,
        })?
        .unzip();
    let keys = console.has_terminal().then(Keys::new).transpose()?;
    let (keys, their_keys) = keys.unzip();
    let cgroup = share.as_ref().and_then(Share::cgroup);
    let domain = cgroup.and_then(Cgroup::domain);
    let forked = match confinement {
        Some(confinement) => confinement.fork(domain)?,
        None => process::fork(0, domain).map_err(|source| Error::Host {
            what: "a process for the VM",
            source,
        })?,
    };
    let child = match forked {
        Fork::Parent(child) => child,
        Fork::Child(lifeline) => {
            drop((source, keys, started, outputs, alive));
            let leaving = Leaving {
                console,
                outputs: their_outputs,
                supervisor,
                keys: their_keys,
                networks,
                share,
            };
            let given = leaving.leave().map(|(console, endpoints, cgroup)| Given {
                console,
                endpoints,
                cgroup,
                stats: sink.unwrap_or(StatsSink::Nowhere),
                lifeline,
                starting: Starting(starting),
            });
            process::end(vmm(given));
        }
    };
    drop((sink, their_keys, starting, their_outputs, supervisor));
    // A process for strangers takes another user, which takes a right.
    let mut service = match NetworkService::start(&mut networks) {
        Ok(service) => service,
        Err(error) => {
            let _ = child.signal(Signal::KILL);
            let _ = child.wait();
            return Err(error);
        }
    };
    if let Err(error) = rights::attend() {
        log::warn!("the supervisor may make system calls that it has no use for: {error}");
    }
    if let Err(error) = rights::keep_those_of_the_end() {
        log::warn!("the supervisor keeps rights that it does not need: {error}");
    }
    let process = child.pid();
    let mut reports = Reports::new(outputs, source);
    let fate = Attended::new(child, started, stop_timeout)
        .until_end(&mut console, keys, &mut reports, &mut service)
        .map_err(Error::Lost)?
        .ok_or(Error::Stuck { process })?;
    drop(console);
    drop(service);
    drop(networks);
    drop(alive);
    match fate {
        Fate::Killed(signal) => Err(killed(signal, share.as_ref())),
        fate => Ok(Supervised {
            fate,
            unwritten: reports.has_failed(),
        }),
    }
}

/// What a VM's process has of its supervisor when it is forked, and leaves to it.
struct Leaving {
    console: Console,
    outputs: Option<TheirOutputs>,
    supervisor: OwnedFd,
    keys: Option<OwnedFd>,
    networks: Vec<Network>,
    share: Option<Share>,
}

impl Leaving {
    /// What the process keeps.
    fn leave(self) -> Result<(Console, Vec<Endpoint>, Option<Cgroup>), Error> {
        let mut console = self.console;
        let leave = |what| move |source| Error::Leave { what, source };
        self.outputs
            .map_or(Ok(()), TheirOutputs::put_in_place)
            .map_err(leave("files"))?;
        console
            .leave_terminal(self.supervisor, self.keys)
            .map_err(leave("the terminal"))?;
        let endpoints = endpoints(&self.networks);
        self.networks.into_iter().for_each(Network::abandon);
        let cgroup = self.share.and_then(Share::abandon);
        if let Some(cgroup) = &cgroup {
            cgroup.join()?;
        }
        Ok((console, endpoints, cgroup))
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
