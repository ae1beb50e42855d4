//! The jail that the VM's process is in, as far as it is wanted and the host gives it.

use crate::Error;
use crate::allocator::map_no_memory;
use kvmlet_host::shares::cgroup::Withheld;
use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_host::walls::jail::{Jail, Missing, Needs, Wall};
use kvmlet_spec::{JailMode, VmConfig};
use kvmlet_sys::process::{Fork, Lifeline};
use kvmlet_sys::seccomp;
use kvmlet_vmm::devices::virtio::vsock::MOST_CONNECTIONS;
use kvmlet_vmm::system_calls::Filters;
use kvmlet_vmm::thread::ThreadKind;
use kvmlet_vmm::vm::{self, Vm, VmHandle};
use std::error::Error as _;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

/// The exit code of a VM's process that has failed.
pub(crate) const FAILED: u8 = 125;

/// A jail for the process of one VM. The methods are called in their order: the first by whoever attends the VM,
/// the others by that process.
pub(crate) struct Confinement {
    jail: Jail,
    /// What the host cannot do is skipped, with a warning.
    best_effort: bool,
    /// What the VM may take, guest RAM included.
    memory_bytes: u64,
    /// Descriptors that it is handed while it runs.
    descriptors: usize,
}

impl Confinement {
    /// The jail that is to be, if one is.
    pub fn plan(config: &VmConfig) -> Option<Self> {
        (config.jail != JailMode::Off).then(|| Self {
            // No two processes that run at the same time have the same number.
            jail: Jail::new(std::process::id()),
            best_effort: config.best_effort || config.jail == JailMode::Auto,
            memory_bytes: config.memory.bytes() + config.overhead().bytes(),
            descriptors: config.vsock.as_ref().map_or(0, |_| MOST_CONNECTIONS),
        })
    }

    /// Forks the VM's process, which is born in `cgroup` if one is given.
    pub fn fork(&self, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork, Error> {
        let forked = self.jail.fork(cgroup, self.best_effort);
        let (fork, missing) = forked.map_err(|missing| self.refused(missing))?;
        if matches!(fork, Fork::Parent(_)) {
            missing.iter().for_each(warn);
        }
        Ok(fork)
    }

    /// Builds the VM while the jail is built, enters the jail, starts the VM's threads, each of which does `on_start`
    /// and is then held to what it needs, and has the limits hold that were withheld. The guest does not run yet. What VMs
    /// have in common is kept in `shared`.
    pub fn start(
        &self,
        shared: Option<RuntimeDirectory>,
        build: impl FnOnce() -> Result<Vm, vm::Error> + Send,
        lifeline: Lifeline,
        on_start: impl Fn(ThreadKind) -> io::Result<()> + Send + Sync + 'static,
        withheld: Withheld,
    ) -> Result<VmHandle, Error> {
        // Those who share a namespace must not be able to make a socket in it.
        let shared = shared.filter(|_| seccomp::check_support().is_ok());
        let (vm, cut_off) = self
            .jail
            .cut_off(self.best_effort, shared.as_deref(), build);
        drop(shared);
        // What is wrong with the VM says more than what is wrong with its jail.
        let vm = vm?;
        let mut kinds = vm.threads();
        kinds.push(ThreadKind::EventLoop);
        map_no_memory()?;
        seccomp::end_at_panic(FAILED);
        let needs = Needs {
            threads: kinds.len(),
            descriptors: self.descriptors,
            memory_bytes: self.memory_bytes,
        };
        let missing = cut_off.and_then(|cut_off| cut_off.enter(&lifeline, needs));
        let missing = missing.map_err(|missing| self.refused(missing))?;
        missing.iter().for_each(warn);
        // It is a handle on another process.
        drop(lifeline);
        let Some(filters) = self.filters(&kinds)? else {
            let vm = vm.start_paused(on_start)?.wait()?;
            withheld.hold()?;
            return Ok(vm);
        };
        let started = Instant::now();
        let for_threads = filters.clone();
        let starting = vm.start_paused(move |kind| {
            on_start(kind)?;
            for_threads.seal(kind)
        })?;
        // The kernel takes its time to check a list, so this thread does not wait for others to have theirs.
        let sealed = filters.seal(ThreadKind::EventLoop);
        sealed.map_err(|source| self.refused(seccomp_missing(source)))?;
        let vm = starting.wait()?;
        let time = started.elapsed().as_secs_f64() * 1e3;
        log::debug!("jail: {time:.3} ms for threads that are held to their lists");
        withheld.hold()?;
        Ok(vm)
    }

    /// What holds the threads to their system calls; `None` where the kernel cannot.
    fn filters(&self, kinds: &[ThreadKind]) -> Result<Option<Arc<Filters>>, Error> {
        match Filters::new(kinds) {
            Ok(filters) => Ok(Some(Arc::new(filters))),
            Err(source) if self.best_effort => {
                warn(&seccomp_missing(source));
                Ok(None)
            }
            Err(source) => Err(self.refused(seccomp_missing(source))),
        }
    }

    /// What cannot be done without, or is not to be.
    fn refused(&self, missing: Missing) -> Error {
        match self.best_effort {
            true => Error::Jail(missing),
            false => Error::Walls(missing),
        }
    }
}

fn seccomp_missing(source: io::Error) -> Missing {
    let wall = Wall::Seccomp;
    Missing { wall, source }
}

/// Tells what is done without. A second wall is not missed much.
fn warn(missing: &Missing) {
    let cause = missing
        .source()
        .map_or(String::new(), |cause| format!(": {cause}"));
    match missing.wall.is_optional() {
        true => log::info!("{missing}{cause}"),
        false => log::warn!("{missing}{cause}"),
    }
}
