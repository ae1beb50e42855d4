//! From a configuration to an outcome.

use crate::admission;
use crate::allocator::use_one_arena;
use crate::attended::Limits;
use crate::confinement::{Confinement, FAILED};
use crate::console::Console;
use crate::contact::Contact;
use crate::last_lines::ConsoleOutput;
use crate::networks::set_up_networks;
use crate::origin::Origin;
use crate::pager::WatchedPager;
use crate::reports::StatsSink;
use crate::session::Session;
use crate::silence::Silence;
use crate::stopping::Stopping;
use crate::supervisor::{Given, Held, supervise};
use crate::upstream::Upstream;
use crate::vsock::Sockets;
use crate::{Attendant, Error, assemble};
use kvmlet_host::net;
use kvmlet_host::net::Network;
use kvmlet_host::shares::cgroup::Cgroup;
use kvmlet_host::shares::ledger::Share;
use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_spec::{Dialect, Net, Outcome, Reason, VmConfig};
use kvmlet_sys::interrupt;
use kvmlet_sys::process::Lifeline;
use kvmlet_sys::standard_error;
use kvmlet_vmm::snapshot::{Saved, most_bytes};
use kvmlet_vmm::thread::ThreadKind;
use kvmlet_vmm::vm::{self, FittingConfig, Vm, VmHandle, make_scratch};
use std::time::{Duration, Instant};

/// Runs a VM, attended by this process: its standard streams are the guest's console, and its signals are the VM's.
/// Returns when the VM has ended and all that was made for it is cleared away. This process has one thread.
///
/// A VM that has walls around it, a network of kvmlet's or a share of the host has a process of its own, and this one
/// keeps what must not be within its reach. Any other runs in this process, which holds nothing that would outlive it.
///
/// # Errors
/// What the host cannot give, and what is wrong with the VM.
pub fn run(config: VmConfig, mut attendant: Attendant) -> Result<Outcome, Error> {
    use_one_arena();
    let mut upstream = match attendant.upstream.take() {
        None => Upstream::default(),
        Some(channel) => Upstream::new(channel, attendant.outlives),
    };
    upstream.tell_ready(attendant.ready.take());
    upstream.listen(attendant.control.take());
    upstream.begin(attendant.paused);
    let dialect = attendant.dialect;
    let outcome = launch(config, attendant, &mut upstream);
    let outcome = match (outcome, interrupt::interrupted_by()) {
        // That is why it failed.
        (Err(error), Some(signal)) => {
            log::info!("ended by signal {signal}: {error}");
            Ok(Outcome::new(Reason::Signal).signal(signal))
        }
        (outcome, _) => outcome,
    };
    upstream.tell_end(&outcome, dialect);
    outcome
}

fn launch(
    config: VmConfig,
    attendant: Attendant,
    upstream: &mut Upstream,
) -> Result<Outcome, Error> {
    let Attendant {
        stats,
        started,
        announce,
        dialect,
        saved,
        paused,
        networks,
        ..
    } = attendant;
    // No overcommitment makes room for one VM that is larger than the host.
    let config = FittingConfig::new(config)?;
    let runtime = admission::runtime(config.best_effort)?;
    // Who makes a network does so in any case.
    let makes_networks = config.nets.iter().any(Net::is_made);
    if let Some(Err(error)) = runtime
        .as_ref()
        .filter(|_| !makes_networks)
        .map(net::reap_stale)
    {
        log::warn!("what killed VMs have left over was not cleared: {error}");
    }
    let console = Console::take().map_err(|source| Error::Host {
        what: "its signals",
        source,
    })?;
    if config.scratch_size.is_some() {
        // A file system that does not answer is found while nothing is held yet, and any signal ends this process.
        let paths = || config.disks.iter().filter_map(|disk| disk.source.path());
        let look = || paths().for_each(|path| drop(path.symlink_metadata()));
        console.signals().while_mortal(look);
    }
    let share = admission::admit(&config, runtime.as_ref())?;
    let stop_timeout = Duration::from_secs(config.guest.stop_timeout_s().into());
    // What is there to be cleared away at the end, however that comes.
    let held = share.as_ref().is_some_and(|share| share.cgroup().is_some())
        || config.nets.iter().any(Net::is_made)
        || upstream.is_wanted()
        || saved.as_ref().is_some_and(|saved| saved.pager.is_some());
    let confinement = Confinement::plan(&config);
    make_scratch(&config)?;
    go_on()?;
    let launch = Launch {
        config,
        saved,
        paused,
        networks,
        runtime,
        console,
        stats,
        stop_timeout,
        started,
        announce,
        dialect,
    };
    match held || confinement.is_some() {
        true => launch.supervised(share, confinement.as_ref(), upstream),
        false => launch.alone(),
    }
}

/// All that a VM takes which needs nothing built yet.
struct Launch {
    config: FittingConfig,
    /// What it goes on from.
    saved: Option<Saved>,
    /// It does nothing until that is asked for.
    paused: bool,
    /// Its interfaces, where another process holds them.
    networks: Option<Vec<Network>>,
    runtime: Option<RuntimeDirectory>,
    console: Console,
    stats: Option<StatsSink>,
    /// How long the guest's service may take to end.
    stop_timeout: Duration,
    /// When the process was.
    started: Instant,
    announce: fn(&VmConfig, &[Network]),
    dialect: Dialect,
}

impl Launch {
    /// Runs the VM in a process of its own. The stack is not to have what only other ways take, nor that of the steps which
    /// are over while it runs: that is a tenth of all memory that a VM takes beside its guest's.
    #[inline(never)]
    fn supervised(
        self,
        share: Option<Share>,
        confinement: Option<&Confinement>,
        upstream: &mut Upstream,
    ) -> Result<Outcome, Error> {
        let Self {
            config,
            mut saved,
            paused,
            networks,
            runtime,
            console,
            stats,
            stop_timeout,
            started,
            announce,
            dialect,
        } = self;
        let networks = networks.map_or_else(|| set_up_networks(&config, runtime.as_ref()), Ok)?;
        let sockets = config.vsock.as_ref().map(Sockets::set_up).transpose()?;
        go_on()?;
        announce(&config, &networks);
        let pager = saved.as_mut().and_then(|saved| saved.pager.as_mut());
        let pager = pager.map(WatchedPager::of).transpose();
        let pager = pager.map_err(|source| Error::Host {
            what: "a look at who has guest memory",
            source,
        })?;
        // Otherwise nothing of the file is looked at any more.
        let mapped = saved.as_ref().filter(|_| pager.is_none());
        let origin = mapped.map(Origin::of).transpose();
        let origin = origin.map_err(|source| Error::Host {
            what: "a look at the snapshot",
            source,
        })?;
        let wants_stats = stats.is_some() || upstream.wants_stats();
        let held = Held {
            networks,
            sockets,
            share,
            stats,
            upstream,
            limits: Limits {
                stop_timeout,
                most_saved: most_bytes(config.memory),
            },
            origin,
            pager,
            dialect,
        };
        let vmm = |given: Given, contact: &Contact| {
            let ConsoleOutput { file, is_null } = ConsoleOutput::open()?;
            let silence = Silence::of(&config);
            // The directory is closed when it has been looked at: nothing of it may be left in a jail.
            let shared = runtime.clone();
            let build = move || {
                let (far_ends, notes) = (given.far_ends, runtime.as_deref());
                Vm::with_endpoints(config, saved, file, far_ends, notes)
            };
            let walls = confinement.map(|confinement| (confinement, shared));
            let vm = match (walls, given.cgroup) {
                (None, None) if !paused => build()?.start()?,
                (walls, cgroup) => {
                    let vm = start_paused(build, cgroup, walls, given.lifeline)?;
                    if !paused {
                        vm.resume()?;
                    }
                    vm
                }
            };
            let session = Session {
                vm: &vm,
                is_null,
                contact,
            };
            let outcome = session.until_end(given.console, Stopping::new(stop_timeout), silence);
            if vm.disks().is_empty() {
                // It goes with the process, quicker than piece by piece. Disks have to be waited for.
                std::mem::forget(vm);
            }
            outcome
        };
        supervise(console, held, confinement, |channel, given| {
            let contact = Contact::with_supervisor(channel, wants_stats, started);
            let outcome = told(given.and_then(|given| vmm(given, &contact)), dialect);
            let code = match outcome.reason {
                Reason::Failed => FAILED,
                _ => 0,
            };
            contact.tell_end(outcome);
            standard_error::finish();
            code
        })
    }

    /// Runs the VM in this process, which holds nothing that would outlive it.
    #[inline(never)]
    fn alone(self) -> Result<Outcome, Error> {
        let Self {
            config,
            saved,
            runtime,
            mut console,
            stats,
            stop_timeout,
            started,
            announce,
            ..
        } = self;
        announce(&config, &[]);
        let ConsoleOutput { file, is_null } = ConsoleOutput::open()?;
        let silence = Silence::of(&config);
        let build = || assemble(config, saved, file, runtime.as_ref());
        let vm = console.signals().while_mortal(build)?;
        console.follow_foreground();
        let vm = vm.start()?;
        let session = Session {
            vm: &vm,
            is_null,
            contact: &Contact::here(stats, started),
        };
        session.until_end(console, Stopping::new(stop_timeout), silence)
    }
}

/// What the supervisor is told of how its VM's process has ended.
fn told(outcome: Result<Outcome, Error>, dialect: Dialect) -> Outcome {
    match (outcome, interrupt::interrupted_by()) {
        (Ok(outcome), _) => outcome,
        // That is why it failed.
        (Err(_), Some(signal)) => Outcome::new(Reason::Signal).signal(signal),
        (Err(error), None) => error.outcome_in(dialect),
    }
}

/// What was cut short may have been cleared away, or told as a warning.
fn go_on() -> Result<(), Error> {
    match interrupt::interrupted_by() {
        None => Ok(()),
        Some(_) => Err(Error::Unwanted),
    }
}

/// Builds a VM and starts its threads, confined if that is wanted, those of vCPUs where their share is. Its guest does not
/// run yet.
#[inline(never)]
fn start_paused(
    build: impl FnOnce() -> Result<Vm, vm::Error> + Send,
    mut cgroup: Option<Cgroup>,
    confinement: Option<(&Confinement, Option<RuntimeDirectory>)>,
    lifeline: Lifeline,
) -> Result<VmHandle, Error> {
    let withheld = cgroup.as_mut().map(Cgroup::withheld).unwrap_or_default();
    let cgroup = cgroup.filter(Cgroup::holds_vcpus);
    let join = move |kind| match (kind, &cgroup) {
        (ThreadKind::Vcpu, Some(cgroup)) => cgroup.join_vcpu(),
        _ => Ok(()),
    };
    if let Some((confinement, shared)) = confinement {
        return confinement.start(shared, build, lifeline, join, withheld);
    }
    let vm = build()?.start_paused(join)?.wait()?;
    withheld.hold()?;
    Ok(vm)
}
