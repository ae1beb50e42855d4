//! Which cgroups a VM gets, and what is written to them, decided before anything is touched.

use super::hierarchy::{Place, Unified, listed};
use super::memory::MemoryLimit;
use super::{Controller, Error, Hierarchies};
use crate::config::{CpuQuota, CpuScope, CpuSet, CpuWeight, Quota};
use rustix::fs::{Access, AtFlags, CWD, accessat};
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

    /// The controllers that it takes.
    fn controllers(&self) -> impl Iterator<Item = Controller> + '_ {
        Controller::ALL
            .into_iter()
            .filter(|controller| match controller {
                Controller::Cpu => self.cpu.is_some() || self.weight.is_some(),
                Controller::Cpuset => self.cpus.is_some(),
                Controller::Memory => self.memory_bytes.is_some(),
            })
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Let the children of a cgroup of version 2 have controllers.
    Enable {
        directory: PathBuf,
        controllers: String,
    },
    /// Make a cgroup.
    Make(PathBuf),
    /// Write to a file.
    Write(PathBuf, String),
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
    /// Plans cgroups below those that this process is in, one in each tree that is needed. `name` is unique on
    /// this host ([`unique_name`](super::unique_name)).
    ///
    /// What the host cannot hold is left out and told by [`missing`](Self::missing).
    pub fn new(hierarchies: &Hierarchies, name: &str, limits: &Limits) -> Self {
        let mut plan = Self {
            name: name.into(),
            ..Self::default()
        };
        let mut unified = Vec::new();
        for controller in limits.controllers() {
            match hierarchies.place(controller) {
                Some(Place::V1(own)) if !is_writable(&own) => {
                    let directory = own;
                    plan.missing.push(Error::Denied {
                        controller,
                        directory,
                        version: 1,
                    });
                }
                Some(Place::V1(own)) => plan.v1(controller, &own, limits),
                Some(Place::V2) => unified.push(controller),
                None => plan.missing.push(absent(hierarchies, controller)),
            }
        }
        if let Some(tree) = &hierarchies.unified
            && !unified.is_empty()
        {
            plan.v2(tree, &unified, limits);
        }
        plan
    }

    /// The name of the cgroup, in each tree.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is asked for and cannot be had, and why.
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

    /// All directories that it makes, in that order. They can be removed by
    /// [`remove_left_over`](super::remove_left_over).
    pub fn directories(&self) -> Vec<PathBuf> {
        let made = self.steps.iter().flat_map(|step| match step {
            // Made only if others are in the way.
            Step::Enable { directory, .. } => Some(self.aside(directory)),
            Step::Make(path) => Some(path.clone()),
            Step::Write(..) => None,
        });
        made.collect()
    }

    /// Where this process goes if it is in the way of its own children in version 2.
    pub(super) fn aside(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}-supervisor", self.name))
    }

    fn make(&mut self, path: &Path) {
        self.steps.push(Step::Make(path.into()));
    }

    fn write(&mut self, directory: &Path, file: &str, text: impl ToString) {
        let path = directory.join(file);
        self.steps.push(Step::Write(path, text.to_string()));
    }

    /// Version 1 (Linux Documentation/admin-guide/cgroup-v1, scheduler/sched-bwc.rst).
    fn v1(&mut self, controller: Controller, own: &Path, limits: &Limits) {
        let directory = own.join(&self.name);
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
                    self.write(&held, "cpu.cfs_quota_us", quota.period_share_us());
                }
            }
            Controller::Cpuset => {
                let nodes = fs::read_to_string(own.join("cpuset.mems")).unwrap_or_default();
                self.write(&directory, "cpuset.mems", nodes.trim());
                if let Some(cpus) = &limits.cpus {
                    self.write(&directory, "cpuset.cpus", cpus);
                }
                if limits.scope == CpuScope::Vcpus {
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

    /// Version 2 (Linux Documentation/admin-guide/cgroup-v2.rst).
    fn v2(&mut self, tree: &Unified, controllers: &[Controller], limits: &Limits) {
        let base = base(tree, controllers);
        let enabled = |controller: &Controller| listed(base, "cgroup.subtree_control", *controller);
        let enabled = controllers.iter().all(enabled);
        let directory = || base.to_path_buf();
        if !is_writable(base) {
            let denied = |controller: &Controller| Error::Denied {
                controller: *controller,
                directory: directory(),
                version: 2,
            };
            self.missing.extend(controllers.iter().map(denied));
            return;
        }
        if !enabled && !is_ours(base) {
            let directory = directory();
            self.missing.push(Error::Occupied { directory });
            return;
        }
        if !enabled {
            self.steps.push(Step::Enable {
                directory: directory(),
                controllers: plus(controllers),
            });
        }
        let directory = base.join(&self.name);
        self.make(&directory);
        self.v2_limits(&directory, controllers, limits);
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
            self.write(&held, "cpu.max", text);
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

/// This process's cgroup; or one above it which already gives its children what is needed, up to where the
/// tree was handed to us: systemd marks that (systemd's "Control Group APIs and Delegation").
fn base<'a>(tree: &'a Unified, controllers: &[Controller]) -> &'a Path {
    let delegated = tree
        .own
        .ancestors()
        .take_while(|path| path.starts_with(&tree.mount));
    let top = delegated.clone().position(is_delegated).unwrap_or(0);
    let gives = |path: &&Path| {
        let mut wanted = controllers.iter();
        is_writable(path)
            && wanted.all(|controller| listed(path, "cgroup.subtree_control", *controller))
    };
    delegated.take(top + 1).find(gives).unwrap_or(&tree.own)
}

/// Is nobody in a cgroup but this process? Then it can give controllers to its children. (The root, which has
/// no `cgroup.type`, always can.)
pub(super) fn is_ours(cgroup: &Path) -> bool {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let own = std::process::id().to_string();
    text.lines().all(|pid| pid == own) || !cgroup.join("cgroup.type").exists()
}

fn is_delegated(cgroup: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        matches!(rustix::fs::getxattr(cgroup, *name, &mut value[..]), Ok(1) if value[0] == b'1')
    })
}

fn is_writable(directory: &Path) -> bool {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, directory, access, AtFlags::EACCESS).is_ok()
}

fn absent(hierarchies: &Hierarchies, controller: Controller) -> Error {
    match &hierarchies.unified {
        Some(tree) if hierarchies.is_withheld(controller) => Error::Withheld {
            controller,
            directory: tree.own.clone(),
        },
        _ => Error::Missing { controller },
    }
}

fn plus(controllers: &[Controller]) -> String {
    let names: Vec<String> = controllers
        .iter()
        .map(|controller| format!("+{}", controller.name()))
        .collect();
    names.join(" ")
}
