//! A VM that was saved goes on, in the foreground, with what it has on this host.

use super::flags::{Pages, read_config};
use super::quota::QuotaFlags;
use super::walls::WallFlags;
use super::{StartedBy, Surroundings, Taken, tell_chosen_ports};
use crate::{Failed, Outcome};
use clap::Args;
use kvmlet_host::net::Network;
use kvmlet_spec::{
    Balloon, Cache, Disk, Memory, Net, PortMappings, Serial, Setting, VmConfig, Vsock,
};
use kvmlet_vmm::memory::Pager;
use kvmlet_vmm::snapshot::{DiskRecord, MachineState, NetRecord, Saved};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a VM that was saved has on this host.
#[derive(Args)]
pub(crate) struct Resume {
    #[arg(long = Setting::Disks.flag(), value_name = Setting::Disks.value(), help = Setting::Disks.help())]
    disk: Vec<Disk>,
    #[arg(long = Setting::Nets.flag(), value_name = Setting::Nets.value(), num_args = 0..=1, default_missing_value = "", help = Setting::Nets.help())]
    net: Vec<Net>,
    #[arg(short, long = Setting::Publish.flag(), value_name = Setting::Publish.value(), help = Setting::Publish.help())]
    pub publish: Vec<PortMappings>,
    #[arg(long = Setting::Vsock.flag(), value_name = Setting::Vsock.value(), help = Setting::Vsock.help())]
    vsock: Option<Vsock>,
    #[arg(long = Setting::HugePages.flag(), value_name = Setting::HugePages.value(), value_enum, help = Setting::HugePages.help())]
    huge_pages: Option<Pages>,
    /// Have a program give guest memory, each page when that is touched first: one that listens at a Unix socket, and speaks the protocol of
    /// Firecracker's page fault handlers. Then nothing but the beginning of the file is read.
    #[arg(long, value_name = "SOCKET", conflicts_with = "verify")]
    memory_from: Option<PathBuf>,
    #[command(flatten)]
    quota: QuotaFlags,
    #[arg(long = Setting::Stats.flag(), value_name = Setting::Stats.value(), help = Setting::Stats.help())]
    stats: Option<PathBuf>,
    #[command(flatten)]
    walls: WallFlags,
    /// Read what it has from the JSON file of a configuration, `-` for standard input, instead of flags.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["disk", "net", "publish", "vsock", "huge_pages"])]
    config: Option<PathBuf>,
    #[command(flatten)]
    surroundings: Surroundings,
}

impl Resume {
    /// What was opened for this process. Before anything else is that could have their numbers.
    pub fn take(&self) -> Result<Taken, Failed> {
        self.surroundings.take("restore")
    }

    /// By whom messages are read.
    pub fn started_by(&self) -> Option<StartedBy> {
        self.surroundings.started_by.as_deref().map(StartedBy::of)
    }

    /// Does it say what the VM has?
    pub fn is_said(&self) -> bool {
        let machine = !self.disk.is_empty() || !self.net.is_empty() || self.vsock.is_some();
        let others = &self.surroundings;
        let is_asked = others.control_fd.is_some() || others.channel_fd.is_some();
        let memory = self.huge_pages.is_some() || self.memory_from.is_some();
        machine || memory || self.config.is_some() || is_asked
    }

    /// Does it have something that only one VM can have: a descriptor, or standard input?
    pub fn is_for_one(&self) -> bool {
        let others = &self.surroundings;
        let descriptors = [others.ready_fd, others.control_fd, others.channel_fd];
        let stdin = Some(Path::new("-"));
        descriptors.iter().any(Option::is_some)
            || others.paused
            || others.started_by.is_some()
            || self.config.as_deref() == stdin
    }

    /// Is its memory somebody else's matter?
    pub fn has_pager(&self) -> bool {
        self.memory_from.is_some()
    }

    /// Connects to whoever has guest memory.
    fn pager(&self) -> Result<Option<Pager>, Failed> {
        let Some(path) = &self.memory_from else {
            return Ok(None);
        };
        let connected = kvmlet_control::connected(path).map_err(|error| {
            let what = format!(
                "no program that has guest memory is found by the socket `{}`",
                path.display()
            );
            Failed::in_vain(what, error).help(
                "start it first: it listens there, and is sent a userfaultfd (docs/snapshots.md)",
            )
        });
        Ok(Some(Pager {
            path: path.clone(),
            socket: connected?,
            keeper: None,
        }))
    }

    /// Has it go on, in the foreground.
    pub fn run(self, taken: Taken, mut saved: Saved, started: Instant) -> Outcome {
        saved.pager = taken.or_tell(self.pager())?;
        let config = match &self.config {
            Some(path) => described(path, &saved.state.machine),
            None => self.config(&saved),
        };
        let config = taken.or_tell(config)?;
        taken.run(config, Some(saved), started, announce)
    }

    /// The machine that was, with disks and interfaces as they are called now.
    fn config(self, saved: &Saved) -> Result<VmConfig, Failed> {
        let machine = &saved.state.machine;
        let count = |what: &str, flag: Setting, had: usize, given: usize| match had == given {
            true => Ok(()),
            false => Err(Failed::new(format!(
                "the VM that was saved had {had} {what}, and {given} are named"
            ))
            .help(format!(
                "say what each is now, in its order, by --{}",
                flag.flag()
            ))),
        };
        let (disks, nets) = (machine.disks.len(), machine.nets.len());
        count("disks", Setting::Disks, disks, self.disk.len())?;
        count("interfaces", Setting::Nets, nets, self.net.len())?;
        let sockets = machine.vsock.iter().count();
        count(
            "sockets' devices",
            Setting::Vsock,
            sockets,
            self.vsock.iter().count(),
        )?;
        let mut config = VmConfig::builder()
            .kernel(&saved.path)
            .vcpus(machine.vcpus.into())
            .memory(Memory::from_bytes(machine.memory_bytes))
            .rng(machine.rng)
            .nested(machine.nested)
            .pmu(machine.pmu)
            .pci(saved.state.pci.is_some());
        if let Some(pages) = self.huge_pages {
            config = config.huge_pages(pages.into());
        }
        config = self.quota.apply(config);
        for (disk, record) in self.disk.into_iter().zip(&machine.disks) {
            config = config.disk(as_it_was(disk, record)?);
        }
        for (net, record) in self.net.into_iter().zip(&machine.nets) {
            config = config.net(connected(net, record)?);
        }
        for mapping in self.publish.into_iter().flatten() {
            config = config.publish(mapping);
        }
        if let Some(record) = &machine.balloon {
            let mut balloon = Balloon::default();
            balloon.size = Memory::from_bytes(record.bytes);
            balloon.deflate_on_oom = record.deflate_on_oom;
            balloon.reporting = record.reporting;
            config = config.balloon(balloon);
        }
        if let (Some(mut vsock), Some(cid)) = (self.vsock, machine.vsock) {
            vsock.cid = u64::from(cid).try_into().map_err(Failed::new)?;
            config = config.vsock(vsock);
        }
        if let Some(path) = self.stats {
            config = config.stats(path);
        }
        config = self.walls.apply(config);
        config
            .build()
            .map_err(|error| kvmlet_vmm::Error::from(error).into())
    }
}

/// The machine that a configuration describes, in which what the guest knows of its devices is as it was.
fn described(path: &Path, machine: &MachineState) -> Result<VmConfig, Failed> {
    let config = read_config(path)?.build();
    as_the_machine_was(config.map_err(kvmlet_vmm::Error::from)?, machine)
}

/// A configuration in which what the guest knows of its devices is as it was.
pub(crate) fn as_the_machine_was(
    mut config: VmConfig,
    machine: &MachineState,
) -> Result<VmConfig, Failed> {
    for (disk, record) in config.disks.iter_mut().zip(&machine.disks) {
        *disk = as_it_was(disk.clone(), record)?;
    }
    for (net, record) in config.nets.iter_mut().zip(&machine.nets) {
        *net = connected(net.clone(), record)?;
    }
    if let (Some(vsock), Some(cid)) = (&mut config.vsock, machine.vsock) {
        vsock.cid = u64::from(cid).try_into().map_err(Failed::new)?;
    }
    Ok(config)
}

/// A disk of this host as the guest knows it. What is said of it is to be what it was.
fn as_it_was(mut disk: Disk, record: &DiskRecord) -> Result<Disk, Failed> {
    let id = String::from_utf8_lossy(&record.id);
    let id = id.trim_end_matches('\0');
    let unsaid = Disk::read_write(disk.source.clone());
    let (queues, said) = (disk.queues.get(), disk.id.as_ref());
    let wrong = [
        (disk.read_only && !record.read_only, Setting::DiskReadOnly),
        (
            disk.cache != unsaid.cache && record.writeback,
            Setting::DiskCache,
        ),
        (
            disk.queues != unsaid.queues && queues != record.queues,
            Setting::DiskQueues,
        ),
        (
            said.is_some_and(|said| said.as_str() != id),
            Setting::DiskId,
        ),
    ];
    if let Some((_, setting)) = wrong.into_iter().find(|(wrong, _)| *wrong) {
        let path = disk.source.path().unwrap_or(Path::new("of ranges"));
        let (path, key) = (path.display(), setting.name());
        return Err(Failed::new(format!(
            "disk `{path}` was another one for the guest that was saved, by its `{key}`"
        ))
        .help(format!("leave `{key}` out: the disk is as it was then")));
    }
    disk.read_only = record.read_only;
    disk.cache = match record.writeback {
        true => Cache::WriteBack,
        false => Cache::WriteThrough,
    };
    disk.queues = u64::from(record.queues).try_into().map_err(Failed::new)?;
    disk.id = Some(Serial::try_from(id.to_owned()).map_err(Failed::new)?);
    Ok(disk)
}

/// An interface of this host as the guest knows it.
fn connected(mut net: Net, record: &NetRecord) -> Result<Net, Failed> {
    let mac = record.mac.map(|byte| format!("{byte:02x}")).join(":");
    net.mac = Some(mac.parse().map_err(Failed::new)?);
    net.queues = u64::from(record.pairs).try_into().map_err(Failed::new)?;
    Ok(net)
}

/// Tells which ports of the host were chosen.
fn announce(config: &VmConfig, networks: &[Network]) {
    tell_chosen_ports(config, kvmlet_run::published(networks));
}
