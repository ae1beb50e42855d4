//! The flags that give a VM a fixed share of its host.

use crate::config::VmConfigBuilder;
use crate::config::{CgroupParent, CpuQuota, CpuScope, CpuSet, CpuWeight, MemoryMode, Overcommit};
use clap::{Args, ValueEnum};

/// What the VM may use of its host.
#[derive(Args)]
pub(super) struct QuotaFlags {
    /// CPU time that the VM may use, in CPUs: 0.5 is half of one.
    #[arg(long, value_name = "CPUS", allow_negative_numbers = true)]
    cpu_quota: Option<CpuQuota>,
    /// CPUs of the host on which the VM may run: 0,2-3.
    #[arg(long, value_name = "LIST")]
    cpuset: Option<CpuSet>,
    /// The VM's weight when CPUs are short, 1 to 10000 [default: 100, or 10 for each thousandth of a CPU in
    /// --cpu-quota].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    cpu_weight: Option<CpuWeight>,
    /// Which threads --cpu-quota and --cpuset hold [default: vm].
    #[arg(long, value_name = "SCOPE", value_enum)]
    cpu_scope: Option<Scope>,
    /// Whether other VMs may use the memory that this one has not touched yet [default: shared].
    #[arg(long, value_name = "MODE", value_enum)]
    memory_mode: Option<Mode>,
    /// The cgroup below which the VM's is made, by its path from the root of the cgroup tree. Made if it is not there
    /// [default: where this user may make any].
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<CgroupParent>,
    /// How much of the host may be promised to all VMs together, as factors: cpus=2,memory=1.5
    /// [default: 1 for both].
    #[arg(long, value_name = "FACTORS")]
    overcommit: Option<Overcommit>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scope {
    /// All threads of the VM.
    Vm,
    /// vCPUs only: disks, interfaces and the console are served beside the share.
    Vcpus,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// Memory is taken when the guest touches it.
    Shared,
    /// All memory is taken before the guest starts.
    Reserved,
}

impl QuotaFlags {
    /// A configuration with what these flags say.
    pub fn apply(self, mut config: VmConfigBuilder) -> VmConfigBuilder {
        if let Some(quota) = self.cpu_quota {
            config = config.cpu_quota(quota);
        }
        if let Some(cpus) = self.cpuset {
            config = config.cpuset(cpus);
        }
        if let Some(weight) = self.cpu_weight {
            config = config.cpu_weight(weight);
        }
        if let Some(scope) = self.cpu_scope {
            config = config.cpu_scope(match scope {
                Scope::Vm => CpuScope::Vm,
                Scope::Vcpus => CpuScope::Vcpus,
            });
        }
        if let Some(mode) = self.memory_mode {
            config = config.memory_mode(match mode {
                Mode::Shared => MemoryMode::Shared,
                Mode::Reserved => MemoryMode::Reserved,
            });
        }
        if let Some(parent) = self.cgroup_parent {
            config = config.cgroup_parent(parent);
        }
        if let Some(overcommit) = self.overcommit {
            config = config.overcommit(overcommit);
        }
        config
    }
}
