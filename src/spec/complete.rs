//! The checks that make a configuration of one under construction.

use super::net::{check_ports, set_name_servers};
use super::{
    DEFAULT_CMDLINE, Disk, DiskSource, Error, GuestSpec, Memory, MemoryMode, Net, Overlay, Quota,
    RootSpec, ServiceSpec, VcpuCount, VmConfig, VmConfigBuilder, cpu_template, service, twice,
};
use kvmlet_contract::AgentSpec;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

impl VmConfigBuilder {
    /// Checks everything that can be checked without looking at the host.
    ///
    /// # Errors
    /// The first value that cannot work, by name, with its limits.
    pub fn build(mut self) -> Result<VmConfig, Error> {
        self.check_paths()?;
        self.hostname
            .as_deref()
            .map_or(Ok(()), service::check_hostname)?;
        let memory = self.memory.unwrap_or(Memory::DEFAULT);
        memory.check(self.huge_pages)?;
        let cmdline = self.cmdline.unwrap_or_else(|| DEFAULT_CMDLINE.into());
        service::check_cmdline(&cmdline)?;
        check_scratch_size(self.scratch_size, self.scratch.as_deref())?;
        let (root, mut disks) = root_disks(self.root, self.scratch, self.read_only)?;
        disks.extend(self.disks);
        twice::check(&disks, &self.nets)?;
        self.nets.iter().try_for_each(Net::check)?;
        let vcpus: VcpuCount = self.vcpus.unwrap_or(1).try_into()?;
        let quota = Quota {
            cpu: self.cpu_quota,
            cpus: self.cpuset,
            weight: self.cpu_weight,
            scope: self.cpu_scope,
            memory: self.memory_mode,
            parent: self.cgroup_parent,
        };
        quota.check(vcpus)?;
        cpu_template::check(&self.cpuid, self.nested)?;
        check_ports(&self.nets)?;
        let servers: Vec<IpAddr> = self.dns.iter().map(|server| server.0).collect();
        set_name_servers(&mut self.nets, &servers)?;
        let prefault = self.prefault || self.memory_mode == Some(MemoryMode::Reserved);
        if let Some(balloon) = &self.balloon {
            balloon.check(memory, self.huge_pages, prefault)?;
        }
        if let Some(vsock) = &self.vsock {
            vsock.check()?;
        }
        let service = ServiceSpec {
            command: self.command,
            env: self.env.into_iter().collect(),
            workdir: self.workdir,
            user: None,
        };
        service::check(&service)?;
        let agent = self.vsock.as_ref().filter(|vsock| vsock.agent);
        let agent = agent.map(|_| AgentSpec::Vsock);
        Ok(VmConfig {
            kernel: self.kernel.ok_or(Error::KernelMissing)?,
            initrd: self.initrd,
            cmdline,
            memory,
            huge_pages: self.huge_pages,
            prefault,
            vcpus,
            cpu_mask: self.cpu_mask,
            cpuid: self.cpuid,
            msrs: self.msrs,
            nested: self.nested,
            pmu: self.pmu,
            pci: self.pci,
            quota,
            overcommit: self.overcommit,
            disks,
            scratch_size: self.scratch_size,
            nets: self.nets,
            balloon: self.balloon,
            vsock: self.vsock,
            rng: self.rng.unwrap_or(true),
            poll: self.poll.unwrap_or(true),
            jail: self.jail,
            best_effort: self.best_effort,
            stats: self.stats,
            guest: GuestSpec {
                service,
                hostname: self.hostname,
                root,
                stop_timeout_s: self.stop_timeout,
                agent,
                ..Default::default()
            },
        })
    }

    fn check_paths(&self) -> Result<(), Error> {
        let named = [
            ("the kernel", &self.kernel),
            ("the initrd", &self.initrd),
            ("the scratch disk", &self.scratch),
            ("the statistics", &self.stats),
        ];
        for (what, path) in named {
            path.as_deref()
                .map_or(Ok(()), |path| service::check_path(what, path))?;
        }
        let root = self.root.iter().map(|root| root.check("the root", true));
        let disk = |disk: &Disk| disk.source.check("a disk", disk.read_only);
        root.chain(self.disks.iter().map(disk)).collect()
    }
}

/// What the guest calls the disk of its root, which is the first.
const ROOT_DEVICE: &str = "/dev/vda";
/// What it calls the disk that keeps the root's changes, which comes next.
const SCRATCH_DEVICE: &str = "/dev/vdb";

/// What mke2fs takes for an ext4 with a journal.
pub(super) const MIN_SCRATCH: Memory = Memory::from_bytes(2 << 20);

fn check_scratch_size(size: Option<Memory>, scratch: Option<&Path>) -> Result<(), Error> {
    match (size, scratch) {
        (Some(_), None) => Err(Error::ScratchSizeAlone),
        (Some(size), _) if size < MIN_SCRATCH => Err(Error::ScratchSize { size }),
        _ => Ok(()),
    }
}

/// The disks that make a root, and how the guest puts them together.
fn root_disks(
    root: Option<DiskSource>,
    scratch: Option<PathBuf>,
    read_only: bool,
) -> Result<(Option<RootSpec>, Vec<Disk>), Error> {
    let (root, scratch) = match (root, scratch) {
        (None, None) => return Ok((None, Vec::new())),
        (None, Some(_)) => return Err(Error::ScratchAlone),
        (Some(_), Some(_)) if read_only => return Err(Error::ScratchAlone),
        (Some(root), scratch) => (Disk::read_only(root), scratch.map(Disk::read_write)),
    };
    let overlay = match &scratch {
        _ if read_only => None,
        Some(_) => Some(Overlay::Device(SCRATCH_DEVICE.into())),
        None => Some(Overlay::Tmpfs),
    };
    let spec = RootSpec {
        device: ROOT_DEVICE.into(),
        fstype: None,
        read_only: true,
        overlay,
    };
    Ok((Some(spec), [root].into_iter().chain(scratch).collect()))
}
