//! From a configuration to an outcome.

use crate::admission;
use crate::attended::Fate;
use crate::confinement::Confinement;
use crate::console::{Console, End};
use crate::last_lines::ConsoleOutput;
use crate::networks::set_up_networks;
use crate::reports::StatsSink;
use crate::session::Session;
use crate::silence::Silence;
use crate::stopping::Stopping;
use crate::supervisor::{Given, Held, Supervised, supervise};
use crate::{Error, Surroundings, Tell, build};
use kvmlet_host::cgroup::Cgroup;
use kvmlet_host::ledger::Share;
use kvmlet_host::net;
use kvmlet_host::net::Network;
use kvmlet_host::runtime::RuntimeDirectory;
use kvmlet_spec::VmConfig;
use kvmlet_sys::interrupt;
use kvmlet_sys::process::Lifeline;
use kvmlet_sys::whole_file::WholeFile;
use kvmlet_vmm::thread::ThreadKind;
use kvmlet_vmm::vm::{self, Vm, VmHandle, make_scratch};
use std::time::{Duration, Instant};

/// How a run has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Why.
    pub end: Ended,
    /// Statistics that were asked for, and could not be written at the end: why, if that was not told yet.
    pub unwritten: Option<Option<Error>>,
}

/// Why a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The VM ended in this process.
    Here(End),
    /// The VM had a process of its own.
    There(Fate),
}

/// Runs a VM, attended by this process: its standard streams are the guest's console, and its signals are the VM's.
/// Returns when the VM has ended and all that was made for it is cleared away. This process has one thread.
///
/// A VM that has walls around it, a network of kvmlet's or a share of the host has a process of its own, and this one
/// keeps what must not be within its reach. Any other runs in this process, which holds nothing that would outlive it.
///
/// # Errors
/// What the host cannot give, and what is wrong with the VM.
pub fn run(config: VmConfig, surroundings: Surroundings) -> Result<Outcome, Error> {
    let Surroundings {
        stats,
        started,
        announce,
        tell,
        conclude,
    } = surroundings;
    let runtime = admission::runtime(config.best_effort)?;
    if let Some(Err(error)) = runtime.as_ref().map(net::reap_stale) {
        log::warn!("what killed VMs have left over was not cleared: {error}");
    }
    let console = Console::take().map_err(|source| Error::Host {
        what: "its signals",
        source,
    })?;
    if config.scratch_size.is_some() {
        // A file system that does not answer is found while nothing is held yet, and any signal ends this process.
        let look = || config.disks.iter().map(|disk| disk.path.symlink_metadata());
        console.signals().while_mortal(|| look().for_each(drop));
    }
    let share = admission::admit(&config, runtime.as_ref())?;
    let stop_timeout = Duration::from_secs(config.guest.stop_timeout_s().into());
    // What is there to be cleared away at the end, however that comes.
    let held = share.as_ref().is_some_and(|share| share.cgroup().is_some())
        || config.nets.iter().any(|net| net.tap.is_none());
    let confinement = Confinement::plan(&config);
    make_scratch(&config)?;
    go_on()?;
    let launch = Launch {
        config,
        runtime,
        console,
        stats,
        stop_timeout,
        started,
        announce,
        tell,
    };
    match held || confinement.is_some() {
        true => launch.supervised(share, confinement.as_ref(), conclude),
        false => launch.alone(),
    }
}

/// All that a VM takes which needs nothing built yet.
struct Launch {
    config: VmConfig,
    runtime: Option<RuntimeDirectory>,
    console: Console,
    stats: Option<WholeFile>,
    /// How long the guest's service may take to end.
    stop_timeout: Duration,
    /// When the process was.
    started: Instant,
    announce: fn(&VmConfig, &[Network]),
    tell: Tell,
}

impl Launch {
    /// Runs the VM in a process of its own.
    fn supervised(
        self,
        share: Option<Share>,
        confinement: Option<&Confinement>,
        conclude: fn(Result<Outcome, Error>) -> u8,
    ) -> Result<Outcome, Error> {
        let Self {
            config,
            runtime,
            console,
            stats,
            stop_timeout,
            started,
            announce,
            tell,
        } = self;
        let networks = set_up_networks(&config, runtime.as_ref())?;
        go_on()?;
        announce(&config, &networks);
        let held = Held {
            networks,
            share,
            stats,
            stop_timeout,
            tell,
        };
        let vmm = |given: Given| {
            let ConsoleOutput { file, is_null } = ConsoleOutput::open()?;
            let silence = Silence::of(&config);
            // The directory is closed when it has been looked at: nothing of it may be left in a jail.
            let build =
                move || Vm::with_endpoints(config, file, given.endpoints, runtime.as_deref());
            let vm = start(build, given.cgroup, confinement, given.lifeline)?;
            drop(given.starting);
            let session = Session {
                vm: &vm,
                is_null,
                stats: &given.stats,
                started,
                tell,
            };
            let end = session.until_end(given.console, Stopping::new(stop_timeout), silence);
            if vm.disks().is_empty() {
                // It goes with the process, quicker than piece by piece. Disks have to be waited for.
                std::mem::forget(vm);
            }
            end
        };
        let supervised = supervise(console, held, confinement, |given| {
            conclude(given.and_then(vmm).map(here))
        })?;
        let Supervised { fate, unwritten } = supervised;
        Ok(Outcome {
            end: Ended::There(fate),
            unwritten: unwritten.then_some(None),
        })
    }

    /// Runs the VM in this process, which holds nothing that would outlive it.
    fn alone(self) -> Result<Outcome, Error> {
        let Self {
            config,
            runtime,
            mut console,
            stats,
            stop_timeout,
            started,
            announce,
            tell,
        } = self;
        announce(&config, &[]);
        let ConsoleOutput { file, is_null } = ConsoleOutput::open()?;
        let silence = Silence::of(&config);
        let build = || build(config, file, runtime.as_ref());
        let vm = console.signals().while_mortal(build)?;
        console.follow_foreground();
        let vm = vm.start()?;
        let stats = stats.map_or(StatsSink::Nowhere, |file| StatsSink::File(Box::new(file)));
        let session = Session {
            vm: &vm,
            is_null,
            stats: &stats,
            started,
            tell,
        };
        let end = session.until_end(console, Stopping::new(stop_timeout), silence);
        end.map(here)
    }
}

fn here((end, written): (End, Result<(), Error>)) -> Outcome {
    Outcome {
        end: Ended::Here(end),
        unwritten: written.err().map(Some),
    }
}

/// What was cut short may have been cleared away, or told as a warning.
fn go_on() -> Result<(), Error> {
    match interrupt::interrupted_by() {
        None => Ok(()),
        Some(_) => Err(Error::Unwanted),
    }
}

/// Builds a VM and starts its threads, confined if that is wanted, those of vCPUs where their share is.
fn start(
    build: impl FnOnce() -> Result<Vm, vm::Error> + Send,
    cgroup: Option<Cgroup>,
    confinement: Option<&Confinement>,
    lifeline: Lifeline,
) -> Result<VmHandle, Error> {
    let cgroup = cgroup.filter(Cgroup::holds_vcpus);
    if confinement.is_none() && cgroup.is_none() {
        return Ok(build()?.start()?);
    }
    let join = move |kind| match (kind, &cgroup) {
        (ThreadKind::Vcpu, Some(cgroup)) => cgroup.join_vcpu(),
        _ => Ok(()),
    };
    if let Some(confinement) = confinement {
        return confinement.start(build, lifeline, join);
    }
    let vm = build()?.start_paused(join)?.wait()?;
    vm.resume()?;
    Ok(vm)
}
