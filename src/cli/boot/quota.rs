//! The flags that give a VM a fixed share of its host.

use clap::{Args, ValueEnum};
use kvmlet_spec::{
    CgroupParent, CpuQuota, CpuScope, CpuSet, CpuWeight, MemoryMode, Overcommit, Setting,
    VmConfigBuilder,
};

/// What the VM may use of its host.
#[derive(Args)]
pub(super) struct QuotaFlags {
    #[arg(long = Setting::CpuQuota.flag(), value_name = Setting::CpuQuota.value(), allow_negative_numbers = true, help = Setting::CpuQuota.help())]
    cpu_quota: Option<CpuQuota>,
    #[arg(long = Setting::Cpuset.flag(), value_name = Setting::Cpuset.value(), help = Setting::Cpuset.help())]
    cpuset: Option<CpuSet>,
    #[arg(long = Setting::CpuWeight.flag(), value_name = Setting::CpuWeight.value(), allow_negative_numbers = true, help = Setting::CpuWeight.help())]
    cpu_weight: Option<CpuWeight>,
    #[arg(long = Setting::CpuScope.flag(), value_name = Setting::CpuScope.value(), value_enum, help = Setting::CpuScope.help())]
    cpu_scope: Option<Scope>,
    #[arg(long = Setting::MemoryMode.flag(), value_name = Setting::MemoryMode.value(), value_enum, help = Setting::MemoryMode.help())]
    memory_mode: Option<Mode>,
    #[arg(long = Setting::CgroupParent.flag(), value_name = Setting::CgroupParent.value(), help = Setting::CgroupParent.help())]
    cgroup_parent: Option<CgroupParent>,
    #[arg(long = Setting::Overcommit.flag(), value_name = Setting::Overcommit.value(), help = Setting::Overcommit.help())]
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
