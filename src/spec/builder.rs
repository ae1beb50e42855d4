//! A configuration under construction.

use super::{
    Balloon, CgroupParent, CpuMask, CpuQuota, CpuScope, CpuSet, CpuWeight, CpuidChange, Disk,
    DiskSource, HugePages, JailMode, Memory, MemoryMode, MsrChange, NameServer, Net, Overcommit,
    PortMapping, Vsock,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// A configuration under construction; every field is optional until [`build`](Self::build).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VmConfigBuilder {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kernel: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) initrd: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cmdline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Memory>,
    pub(super) huge_pages: HugePages,
    pub(super) prefault: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vcpus: Option<u64>,
    pub(super) cpu_mask: CpuMask,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) cpuid: Vec<CpuidChange>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) msrs: Vec<MsrChange>,
    pub(super) nested: bool,
    pub(super) pmu: bool,
    pub(super) pci: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_quota: Option<CpuQuota>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpuset: Option<CpuSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpu_weight: Option<CpuWeight>,
    pub(super) cpu_scope: CpuScope,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cgroup_parent: Option<CgroupParent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory_mode: Option<MemoryMode>,
    pub(super) overcommit: Overcommit,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<DiskSource>,
    pub(super) read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scratch: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scratch_size: Option<Memory>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) disks: Vec<Disk>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) nets: Vec<Net>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) dns: Vec<NameServer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) balloon: Option<Balloon>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vsock: Option<Vsock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rng: Option<bool>,
    pub(super) poll: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) command: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workdir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stop_timeout: Option<u32>,
    pub(super) jail: JailMode,
    pub(super) best_effort: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stats: Option<PathBuf>,
}

impl VmConfigBuilder {
    /// The guest kernel: an ELF `vmlinux` or a bzImage.
    pub fn kernel(mut self, path: impl Into<PathBuf>) -> Self {
        self.kernel = Some(path.into());
        self
    }

    /// The kernel that was named so far.
    pub fn has_kernel(&self) -> bool {
        self.kernel.is_some()
    }

    /// The initial RAM disk.
    pub fn initrd(mut self, path: impl Into<PathBuf>) -> Self {
        self.initrd = Some(path.into());
        self
    }

    /// Whether an initial RAM disk was named so far.
    pub fn has_initrd(&self) -> bool {
        self.initrd.is_some()
    }

    /// The kernel command line, instead of [`DEFAULT_CMDLINE`](super::DEFAULT_CMDLINE).
    pub fn cmdline(mut self, text: impl Into<String>) -> Self {
        self.cmdline = Some(text.into());
        self
    }

    /// Whether a kernel command line was given so far.
    pub fn has_cmdline(&self) -> bool {
        self.cmdline.is_some()
    }

    /// Guest RAM.
    pub fn memory(mut self, size: Memory) -> Self {
        self.memory = Some(size);
        self
    }

    /// Which pages back guest RAM.
    pub fn huge_pages(mut self, pages: HugePages) -> Self {
        self.huge_pages = pages;
        self
    }

    /// Touch all guest RAM before the guest starts.
    pub fn prefault(mut self, yes: bool) -> Self {
        self.prefault = yes;
        self
    }

    /// How many vCPUs; checked by [`build`](Self::build).
    pub fn vcpus(mut self, count: u64) -> Self {
        self.vcpus = Some(count);
        self
    }

    /// CPUID bits to hide from the guest.
    pub fn cpu_mask(mut self, mask: CpuMask) -> Self {
        self.cpu_mask = mask;
        self
    }

    /// What the guest is to see of CPUID, whatever KVM offers and kvmlet has there. Can be said again.
    pub fn cpuid(mut self, change: CpuidChange) -> Self {
        self.cpuid.push(change);
        self
    }

    /// What a model-specific register of all vCPUs is to have in it when the guest begins. Can be said again.
    pub fn msr(mut self, change: MsrChange) -> Self {
        self.msrs.push(change);
        self
    }

    /// Whether the guest sees VT-x or SVM, with which it can run virtual machines of its own. It does not unless this
    /// says so: all of KVM's emulation of them is one more thing that a guest can attack.
    pub fn nested(mut self, yes: bool) -> Self {
        self.nested = yes;
        self
    }

    /// Whether the guest has performance counters. It has none unless this says so: they count what its neighbours
    /// on the same core do as well.
    pub fn pmu(mut self, yes: bool) -> Self {
        self.pmu = yes;
        self
    }

    /// Whether devices are on a PCI bus, where stock kernels find them, and there can be more of them. They are at fixed
    /// addresses unless this says so, which kernels without PCI find sooner.
    pub fn pci(mut self, yes: bool) -> Self {
        self.pci = yes;
        self
    }

    /// How much CPU time the VM may use.
    pub fn cpu_quota(mut self, quota: CpuQuota) -> Self {
        self.cpu_quota = Some(quota);
        self
    }

    /// The CPUs of the host that the VM may use.
    pub fn cpuset(mut self, cpus: CpuSet) -> Self {
        self.cpuset = Some(cpus);
        self
    }

    /// The VM's weight when CPUs are short.
    pub fn cpu_weight(mut self, weight: CpuWeight) -> Self {
        self.cpu_weight = Some(weight);
        self
    }

    /// Which threads the CPU quota and the CPU set hold.
    pub fn cpu_scope(mut self, scope: CpuScope) -> Self {
        self.cpu_scope = scope;
        self
    }

    /// Whether the memory behind guest RAM is shared or reserved, with a limit on what the VMM takes.
    pub fn memory_mode(mut self, mode: MemoryMode) -> Self {
        self.memory_mode = Some(mode);
        self
    }

    /// The cgroup below which the VM's is made.
    pub fn cgroup_parent(mut self, parent: CgroupParent) -> Self {
        self.cgroup_parent = Some(parent);
        self
    }

    /// How much more than the host has may be promised to all VMs together.
    pub fn overcommit(mut self, overcommit: Overcommit) -> Self {
        self.overcommit = overcommit;
        self
    }

    /// The image of a root file system (erofs or ext4). VMs share it: it is only read, and what the guest
    /// changes goes to its memory, or to the [scratch](Self::scratch) disk.
    pub fn root(mut self, image: impl Into<DiskSource>) -> Self {
        self.root = Some(image.into());
        self
    }

    /// Whether a root was named so far.
    pub fn has_root(&self) -> bool {
        self.root.is_some()
    }

    /// Whether the guest cannot change its root: then neither its memory nor a scratch disk keeps changes.
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// A disk of the VM's own that keeps what the guest changes of its root: an ext4 file system.
    pub fn scratch(mut self, image: impl Into<PathBuf>) -> Self {
        self.scratch = Some(image.into());
        self
    }

    /// How big a scratch disk is made, with an empty file system, where there is no file of that name.
    pub fn scratch_size(mut self, size: Memory) -> Self {
        self.scratch_size = Some(size);
        self
    }

    /// One more disk.
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// One more network interface.
    pub fn net(mut self, net: Net) -> Self {
        self.nets.push(net);
        self
    }

    /// A memory balloon, by which the guest gives memory back to the host.
    pub fn balloon(mut self, balloon: Balloon) -> Self {
        self.balloon = Some(balloon);
        self
    }

    /// Sockets between guest and host.
    pub fn vsock(mut self, vsock: Vsock) -> Self {
        self.vsock = Some(vsock);
        self
    }

    /// Whether there is an entropy source. There is unless this says no: a guest whose processor has RDRAND, and whose
    /// kernel trusts it, can do without, and starts with 45 exits and a thread less.
    pub fn rng(mut self, rng: bool) -> Self {
        self.rng = Some(rng);
        self
    }

    /// Whether the threads of disks look for requests for a moment before they sleep for them, where that has paid. They do
    /// unless this says no, or there is a CPU quota: waking a thread takes longer than many requests do.
    pub fn poll(mut self, poll: bool) -> Self {
        self.poll = Some(poll);
        self
    }

    /// Makes a port of the host lead to the guest, through the first interface that kvmlet makes; there is
    /// one then, even if nothing else asks for it.
    pub fn publish(mut self, mapping: PortMapping) -> Self {
        match self.nets.iter_mut().find(|net| net.is_made()) {
            Some(net) => net.publish.push(mapping),
            None => {
                let mut net = Net::default();
                net.publish.push(mapping);
                self.nets.push(net);
            }
        }
        self
    }

    /// One more name server that the host asks for the guest's names, in this order; without any it asks its own.
    pub fn dns(mut self, address: IpAddr) -> Self {
        self.dns.push(NameServer(address));
        self
    }

    /// The service that the guest's init runs, with its arguments, instead of the image's own.
    pub fn command<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    /// An environment variable of the service; the last value given to a name counts.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// The directory in which the service starts.
    pub fn workdir(mut self, path: impl Into<String>) -> Self {
        self.workdir = Some(path.into());
        self
    }

    /// The guest's host name.
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }

    /// How long the service may take to end once the guest is asked (`VmHandle::request_stop`) to, in seconds,
    /// before its init kills it: 10 if nothing is said.
    pub fn stop_timeout(mut self, seconds: u32) -> Self {
        self.stop_timeout = Some(seconds);
        self
    }

    /// What is to be done about the walls around the VM's process.
    pub fn jail(mut self, mode: JailMode) -> Self {
        self.jail = mode;
        self
    }

    /// Whether a VM runs, with a warning, where its host cannot hold it to what is asked for.
    pub fn best_effort(mut self, yes: bool) -> Self {
        self.best_effort = yes;
        self
    }

    /// Where statistics are written as JSON, when the VM ends and on request.
    pub fn stats(mut self, path: impl Into<PathBuf>) -> Self {
        self.stats = Some(path.into());
        self
    }
}
