//! `kvmlet boot`: one VM in the foreground.

mod admission;
mod announcement;
mod confinement;
mod flags;
mod last_lines;
mod quota;
mod running;

use super::console::Console;
use super::silence::Silence;
use super::stats::StatsSink;
use super::stopping::Stopping;
use super::supervisor::{Held, supervise};
use super::{ExitCode, Failed, Outcome, terminal};
use crate::config::PortMapping;
use crate::host;
use crate::host::cgroup::Cgroup;
use crate::host::interrupt;
use crate::host::ledger::Share;
use crate::host::process::Lifeline;
use crate::host::runtime::RuntimeDirectory;
use crate::host::standard_error;
use crate::host::whole_file::WholeFile;
use crate::run::{self, set_up_networks};
use crate::thread::ThreadKind;
use crate::vm::make_scratch;
use crate::{Error, Vm, VmConfig, VmHandle};
use clap::Args;
pub(crate) use confinement::Confinement;
use flags::Flags;
use last_lines::ConsoleOutput;
use running::Running;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// Boot a guest in a microVM, connect it to this terminal, and end with its exit code.
///
/// Without --kernel and --initrd, boots the kernel that `kernels/build` and the root that `images/build
/// minimal` have left in the cache. Ctrl-] ends the VM from the keyboard.
#[derive(Args)]
#[command(after_help = "\
Exit codes: the service's own code; 125 if kvmlet fails or is used wrongly, 129 if the guest asked for a reset, 134 if its \
kernel panicked, 139 if it crashed with a triple fault, 128+N if kvmlet was ended by signal N, 159 if one of its threads made a system call that it is not allowed to.")]
pub(crate) struct Boot {
    #[command(flatten)]
    flags: Flags,
}

impl Boot {
    pub fn run(self, started: Instant) -> Outcome {
        let outcome = self.boot(started);
        match (outcome, interrupt::interrupted_by()) {
            // That is why it failed.
            (Err(failed), Some(signal)) => {
                log::info!("ended by signal {signal}: {}", failed.first_line());
                Ok(ExitCode::Signal(signal).number())
            }
            (outcome, _) => outcome,
        }
    }

    fn boot(self, started: Instant) -> Outcome {
        let mut config = self.flags.config()?;
        config.guest.console = terminal::size();
        // A VM that has run for an hour should not end with a file that cannot be written.
        let stats = config.stats.as_deref().map(WholeFile::open).transpose()?;
        let runtime = admission::runtime(config.best_effort)?;
        if let Some(Err(error)) = runtime.as_ref().map(host::net::reap_stale) {
            log::warn!("what killed VMs have left over was not cleared: {error}");
        }
        let console = Console::take().map_err(Failed::new)?;
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
        let confinement = Confinement::of(&config);
        make_scratch(&config)?;
        go_on()?;
        let prepared = Prepared {
            config,
            runtime,
            console,
            stats,
            stop_timeout,
            started,
        };
        match held || confinement.is_some() {
            true => prepared.supervised(share, confinement.as_ref()),
            false => prepared.alone(),
        }
    }
}

/// All that a VM takes which needs nothing built yet.
struct Prepared {
    config: VmConfig,
    runtime: Option<RuntimeDirectory>,
    console: Console,
    stats: Option<WholeFile>,
    /// How long the guest's service may take to end.
    stop_timeout: Duration,
    /// When the process was.
    started: Instant,
}

impl Prepared {
    /// Runs the VM in a process of its own.
    fn supervised(self, share: Option<Share>, confinement: Option<&Confinement>) -> Outcome {
        let Self {
            config,
            runtime,
            console,
            stats,
            stop_timeout,
            started,
        } = self;
        let networks = set_up_networks(&config, runtime.as_ref())?;
        go_on()?;
        match stderr().is_terminal() {
            true => announcement::print(&config, &networks),
            false => tell_chosen_ports(&config, run::published(&networks)),
        }
        let held = Held {
            networks,
            share,
            stats,
            stop_timeout,
        };
        supervise(console, held, confinement, |given| {
            let ConsoleOutput { file, is_null } = ConsoleOutput::open()?;
            let silence = Silence::of(&config);
            // The directory is closed when it has been looked at: nothing of it may be left in a jail.
            let build =
                move || Vm::with_endpoints(config, file, given.endpoints, runtime.as_deref());
            let vm = start(build, given.cgroup, confinement, given.lifeline)?;
            drop(given.starting);
            let running = Running {
                vm: &vm,
                is_null,
                stats: &given.stats,
                started,
            };
            let outcome = running.until_end(given.console, Stopping::new(stop_timeout), silence);
            if vm.disks().is_empty() {
                // It goes with the process, quicker than piece by piece. Disks have to be waited for.
                std::mem::forget(vm);
            }
            outcome
        })
    }

    /// Runs the VM in this process, which holds nothing that would outlive it.
    fn alone(self) -> Outcome {
        let Self {
            config,
            runtime,
            mut console,
            stats,
            stop_timeout,
            started,
        } = self;
        if stderr().is_terminal() {
            announcement::print(&config, &[]);
        }
        let ConsoleOutput { file, is_null } = ConsoleOutput::open()?;
        let silence = Silence::of(&config);
        let build = || run::build(config, file, runtime.as_ref());
        let vm = console.signals().while_mortal(build)?;
        console.follow_foreground();
        let vm = vm.start()?;
        let stats = stats.map_or(StatsSink::Nowhere, |file| StatsSink::File(Box::new(file)));
        let running = Running {
            vm: &vm,
            is_null,
            stats: &stats,
            started,
        };
        running.until_end(console, Stopping::new(stop_timeout), silence)
    }
}

/// What was cut short may have been cleared away, or told as a warning.
fn go_on() -> Result<(), Failed> {
    match interrupt::interrupted_by() {
        None => Ok(()),
        Some(_) => Err(Failed::new("the VM is not wanted any more")),
    }
}

/// Tells which ports of the host were chosen, where what was asked for left that open.
fn tell_chosen_ports<'a>(config: &VmConfig, published: impl Iterator<Item = &'a PortMapping>) {
    let is_asked = |mapping: &PortMapping| {
        let mut nets = config.nets.iter();
        nets.any(|net| net.publish.contains(mapping))
    };
    for mapping in published.filter(|mapping| !is_asked(mapping)) {
        standard_error::say(format_args!("kvmlet: published {mapping}"));
    }
}

/// Builds a VM and starts its threads, confined if that is wanted, those of vCPUs where their share is.
fn start(
    build: impl FnOnce() -> Result<Vm, Error> + Send,
    cgroup: Option<Cgroup>,
    confinement: Option<&Confinement>,
    lifeline: Lifeline,
) -> Result<VmHandle, Failed> {
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
