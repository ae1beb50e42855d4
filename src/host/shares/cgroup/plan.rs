//! Which cgroups a VM gets, and what is written to them, decided before anything is touched.

use super::hierarchy::{Home, Tree};
use super::memory::MemoryLimit;
use super::parent::{self, Place};
use super::step::Step;
use super::{Controller, Error, Hierarchies};
use crate::config::{CpuQuota, CpuScope, CpuSet, CpuWeight, Quota};
use std::fs;
use std::path::{Path, PathBuf};

/// What a VM's cgroup holds it to.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// CPU time.
    pub cpu: Option<CpuQuota>,
    /// CPUs.
    pub cpus: Option<CpuSet>,
    /// Weight against others.
    pub weight: Option<CpuWeight>,
    /// Which threads the first two hold.
    pub scope: CpuScope,
    /// All memory of the VM, with what the kernel keeps for it, in bytes. It is never swapped out.
    pub memory_bytes: Option<u64>,
}

impl Limits {
    /// A quota's limits, and one for all memory.
    pub fn new(quota: &Quota, memory_bytes: u64) -> Self {
        Self {
            cpu: quota.cpu,
            cpus: quota.cpus.clone(),
            weight: quota.weight.or(quota.cpu.map(CpuWeight::for_quota)),
            scope: quota.scope,
            memory_bytes: Some(memory_bytes),
        }
    }

    /// Limits that take one controller.
    pub(super) fn any_of(controller: Controller) -> Self {
        let mut limits = Self::default();
        match controller {
            Controller::Cpu => limits.cpu = Some(CpuQuota::MIN),
            Controller::Cpuset => limits.cpus = CpuSet::from_cpus([0]),
            Controller::Memory => limits.memory_bytes = Some(0),
        }
        limits
    }

    /// Do they take this controller?
    fn take(&self, controller: Controller) -> bool {
        match controller {
            Controller::Cpu => self.cpu.is_some() || self.weight.is_some(),
            Controller::Cpuset => self.cpus.is_some(),
            Controller::Memory => self.memory_bytes.is_some(),
        }
    }
}

impl Hierarchies {
    /// Where VMs can be held by a controller, in words.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn offer(&self, controller: Controller) -> Result<String, Error> {
        let limits = Limits::any_of(controller);
        let plan = Plan::new(self, "kvmlet", &limits, None).whole()?;
        let version = if plan.domain.is_some() { 2 } else { 1 };
        let made = plan.directories().pop().unwrap_or_default();
        let base = made.parent().unwrap_or(&made);
        Ok(format!("cgroup version {version}, in {}", base.display()))
    }
}

/// The cgroups of one VM, not made yet.
#[derive(Debug, Default)]
pub struct Plan {
    pub(super) name: String,
    pub(super) steps: Vec<Step>,
    /// Where the process goes in version 2.
    pub(super) domain: Option<PathBuf>,
    /// Where the process goes in version 1.
    pub(super) processes: Vec<PathBuf>,
    /// Files to which a vCPU thread writes `0` to be held by quota and CPU set.
    pub(super) vcpus: Vec<PathBuf>,
    /// Where memory is limited.
    pub(super) memory: Option<MemoryLimit>,
    pub(super) missing: Vec<Error>,
}

impl Plan {
    /// Plans one cgroup in each tree that is needed: below the cgroup `parent`, a path from the root of a tree, or
    /// else in version 1 below that of this process, in version 2 where VMs of this user can be. `name` is unique
    /// on this host ([`unique_name`](super::unique_name)).
    ///
    /// What the host cannot hold is left out and told by [`missing`](Self::missing).
    pub fn new(
        hierarchies: &Hierarchies,
        name: &str,
        limits: &Limits,
        parent: Option<&Path>,
    ) -> Self {
        let mut plan = Self {
            name: name.into(),
            ..Self::default()
        };
        let mut unified = Vec::new();
        for controller in Controller::ALL {
            let taken = limits.take(controller);
            match hierarchies.home(controller) {
                // What holds the parent holds the VM, in each tree.
                Some(Home::V1(tree)) if taken || parent.is_some() => {
                    plan.v1(controller, &tree, limits, parent);
                }
                Some(Home::V2) if taken => unified.push(controller),
                None if taken => plan.missing.push(absent(hierarchies, controller)),
                _ => {}
            }
        }
        if let Some(tree) = &hierarchies.unified
            && !unified.is_empty()
        {
            plan.v2(tree, &unified, limits, parent);
        }
        plan
    }

    /// The name of the cgroup, in each tree.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is asked for and not available, and why.
    pub fn missing(&self) -> &[Error] {
        &self.missing
    }

    /// The plan, if nothing is [missing](Self::missing).
    ///
    /// # Errors
    /// The first thing that is.
    pub fn whole(mut self) -> Result<Self, Error> {
        if self.missing.is_empty() {
            return Ok(self);
        }
        Err(self.missing.swap_remove(0))
    }

    /// All directories that are for this VM alone, in the order in which they are made. They can be removed by
    /// [`remove_left_over`](super::remove_left_over).
    pub fn directories(&self) -> Vec<PathBuf> {
        let made = self.steps.iter().filter_map(Step::made);
        made.cloned().collect()
    }

    /// All directories around them that are made if they are not there. They can be removed by
    /// [`remove_unused`](super::remove_unused).
    pub fn shared(&self) -> Vec<PathBuf> {
        let shared = self.steps.iter().filter_map(|step| match step {
            Step::Share(path) => Some(path.clone()),
            _ => None,
        });
        shared.collect()
    }

    /// Takes over what others have made and this one's cgroups are below: whoever goes last removes it.
    pub fn share_with<'a>(&mut self, others: impl Iterator<Item = &'a PathBuf>) {
        let mut inherited: Vec<&PathBuf> = others
            .filter(|path| {
                let mut directories = self.steps.iter().filter_map(Step::made);
                directories.any(|directory| directory.starts_with(path))
            })
            .collect();
        inherited.sort_unstable();
        inherited.dedup();
        let shared: Vec<Step> = inherited
            .into_iter()
            .map(|path| Step::Share(path.clone()))
            .collect();
        let own: Vec<Step> = self
            .steps
            .drain(..)
            .filter(|step| !shared.contains(step))
            .collect();
        self.steps.extend(shared);
        self.steps.extend(own);
    }

    fn make(&mut self, path: &Path) {
        self.steps.push(Step::Make(path.into()));
    }

    fn write(&mut self, directory: &Path, file: &str, text: impl ToString) {
        let path = directory.join(file);
        self.steps.push(Step::Write(path, text.to_string()));
    }

    fn withhold(&mut self, directory: &Path, file: &str, text: impl ToString) {
        let path = directory.join(file);
        self.steps.push(Step::Withhold(path, text.to_string()));
    }

    /// Version 1 (Linux Documentation/admin-guide/cgroup-v1, scheduler/sched-bwc.rst).
    fn v1(&mut self, controller: Controller, tree: &Tree, limits: &Limits, parent: Option<&Path>) {
        let base = parent.map(|path| parent::below(&tree.mount, path));
        let base = base.unwrap_or_else(|| tree.own.clone());
        let existing = base.ancestors().find(|path| path.is_dir());
        let existing = existing.unwrap_or(&tree.mount);
        if parent::is_writable(existing).is_err() {
            let directory = existing.into();
            self.missing.push(Error::Denied {
                controller,
                directory,
                version: 1,
            });
            return;
        }
        let to_make: Vec<&Path> = base
            .ancestors()
            .take_while(|path| *path != existing)
            .collect();
        for path in to_make.into_iter().rev() {
            self.steps.push(Step::Share(path.into()));
            if controller == Controller::Cpuset {
                self.copy_cpuset(existing, path, None);
            }
        }
        let (base, own) = (&base, existing);
        let directory = base.join(&self.name);
        self.make(&directory);
        let mut held = directory.clone();
        match controller {
            Controller::Cpu => {
                if let Some(weight) = limits.weight {
                    // 1024 shares are what 100 is in version 2.
                    let shares = (u32::from(weight.get()) * 1024 / 100).max(2);
                    self.write(&directory, "cpu.shares", shares);
                }
                if let Some(quota) = limits.cpu {
                    if limits.scope == CpuScope::Vcpus {
                        held = directory.join("vcpus");
                        self.make(&held);
                        self.vcpus.push(held.join("tasks"));
                    }
                    self.withhold(&held, "cpu.cfs_quota_us", quota.period_share_us());
                }
            }
            Controller::Cpuset => {
                self.copy_cpuset(own, &directory, limits.cpus.as_ref());
                if limits.scope == CpuScope::Vcpus && limits.cpus.is_some() {
                    // Other threads stay where they are.
                    self.vcpus.push(directory.join("tasks"));
                    return;
                }
            }
            Controller::Memory => {
                if let Some(bytes) = limits.memory_bytes {
                    self.write(&directory, "memory.limit_in_bytes", bytes);
                    // The sum of RAM and swap, where swap is counted.
                    let sum = "memory.memsw.limit_in_bytes";
                    if own.join(sum).exists() {
                        self.write(&directory, sum, bytes);
                    } else {
                        self.write(&directory, "memory.swappiness", 0);
                    }
                    self.memory = Some(MemoryLimit::V1(directory.clone()));
                }
            }
        }
        self.processes.push(directory);
    }

    /// A new cgroup of this kind has no CPUs and no memory nodes, and takes no process without.
    fn copy_cpuset(&mut self, from: &Path, directory: &Path, cpus: Option<&CpuSet>) {
        let read = |file| fs::read_to_string(from.join(file)).unwrap_or_default();
        self.write(directory, "cpuset.mems", read("cpuset.mems").trim());
        let cpus = cpus.map_or_else(|| read("cpuset.cpus").trim().into(), CpuSet::to_string);
        self.write(directory, "cpuset.cpus", cpus);
    }

    /// Version 2 (Linux Documentation/admin-guide/cgroup-v2.rst).
    fn v2(
        &mut self,
        tree: &Tree,
        controllers: &[Controller],
        limits: &Limits,
        parent: Option<&Path>,
    ) {
        let (place, missing) = Place::find(tree, parent, controllers);
        let is_missing = |controller: &&Controller| {
            let mut withheld = missing.iter().filter_map(Error::controller);
            withheld.any(|withheld| withheld == **controller)
        };
        let given = controllers
            .iter()
            .filter(|controller| !is_missing(controller));
        let given: Vec<Controller> = given.copied().collect();
        self.missing.extend(missing);
        let Some(place) = place.filter(|_| !given.is_empty()) else {
            return;
        };
        let (steps, parent) = place.steps(tree, &given);
        self.steps.extend(steps);
        let directory = parent.join(&self.name);
        self.make(&directory);
        self.v2_limits(&directory, &given, limits);
        self.domain = Some(directory);
    }

    fn v2_limits(&mut self, directory: &Path, controllers: &[Controller], limits: &Limits) {
        let has = |controller| controllers.contains(&controller);
        let cpu = limits.cpu.filter(|_| has(Controller::Cpu));
        let cpus = limits.cpus.as_ref().filter(|_| has(Controller::Cpuset));
        let mut held = directory.to_path_buf();
        if limits.scope == CpuScope::Vcpus && (cpu.is_some() || cpus.is_some()) {
            held.push("vcpus");
            self.make(&held);
            self.write(&held, "cgroup.type", "threaded");
            let threaded = [
                cpu.map(|_| Controller::Cpu),
                cpus.map(|_| Controller::Cpuset),
            ];
            let threaded: Vec<Controller> = threaded.into_iter().flatten().collect();
            self.write(directory, "cgroup.subtree_control", plus(&threaded));
            self.vcpus.push(held.join("cgroup.threads"));
        }
        if has(Controller::Cpu)
            && let Some(weight) = limits.weight
        {
            self.write(directory, "cpu.weight", weight.get());
        }
        if let Some(quota) = cpu {
            let text = format!("{} {}", quota.period_share_us(), CpuQuota::PERIOD_US);
            self.withhold(&held, "cpu.max", text);
        }
        if let Some(cpus) = cpus {
            self.write(&held, "cpuset.cpus", cpus);
        }
        if let Some(bytes) = limits.memory_bytes.filter(|_| has(Controller::Memory)) {
            self.memory = Some(MemoryLimit::V2(directory.into()));
            self.write(directory, "memory.max", bytes);
            self.write(directory, SWAP, 0);
        }
    }
}

/// The one file that may be missing: where the kernel has no swap.
pub(super) const SWAP: &str = "memory.swap.max";

fn absent(hierarchies: &Hierarchies, controller: Controller) -> Error {
    match &hierarchies.unified {
        // Seen from a container it may be withheld, and then it is nowhere.
        Some(tree) if !parent::is_root(&tree.mount) => Error::Withheld {
            controller,
            directory: tree.mount.clone(),
        },
        _ => Error::Missing { controller },
    }
}

/// What makes a cgroup give controllers to its children.
pub(super) fn plus(controllers: &[Controller]) -> String {
    let names: Vec<String> = controllers
        .iter()
        .map(|controller| format!("+{}", controller.name()))
        .collect();
    names.join(" ")
}
