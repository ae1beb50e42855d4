//! What a VM is going to be, as far as it was described.

use super::cpu_config::CpuConfig;
use super::fault::Fault;
use super::model::{
    Balloon, BootSource, CpuTemplate, Drive, Entropy, HugePages, Logger, MachineConfig,
    MachinePatch, Metrics, MmdsConfig, NetworkInterface, Serial, Vsock, readable,
};
use kvmlet_spec::{Cid, MacAddress, VcpuCount};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// All that was described, as a file has it and as `GET /vm/config` tells it. Unknown keys are refused at the top, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Machine {
    pub balloon: Option<Balloon>,
    pub drives: Vec<Drive>,
    pub boot_source: Option<BootSource>,
    /// In a file: the file that has it. Firecracker tells nothing of it afterwards.
    cpu_config: Option<PathBuf>,
    #[serde(skip)]
    pub cpus: CpuConfig,
    pub logger: Option<Logger>,
    pub machine_config: MachineConfig,
    pub metrics: Option<Metrics>,
    pub mmds_config: Option<MmdsConfig>,
    pub network_interfaces: Vec<NetworkInterface>,
    pub vsock: Option<Vsock>,
    pub entropy: Option<Entropy>,
    pub serial: Option<Serial>,
    pub pmem: Vec<serde_json::Value>,
    pub memory_hotplug: Option<serde_json::Value>,
}

/// One thing that is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Component {
    Boot(BootSource),
    Machine(MachineConfig),
    Cpus(CpuConfig),
    Drive(Drive),
    Network(NetworkInterface),
    Vsock(Vsock),
    Balloon(Balloon),
    Entropy(Entropy),
    Serial(Serial),
    Logger(Logger),
    Metrics(Metrics),
    Mmds(MmdsConfig),
}

/// Firecracker's own limit, which clients know.
const MOST_VCPUS: u8 = 32;

impl Machine {
    /// Reads the description that a file has.
    pub fn of_file(text: &str) -> Result<Self, Fault> {
        let file: Self = serde_json::from_str(text).map_err(|error| Fault(error.to_string()))?;
        for (given, what) in [
            (!file.pmem.is_empty(), PMEM),
            (file.memory_hotplug.is_some(), HOTPLUG),
        ] {
            if given {
                return Err(Fault::unsupported(what.0, what.1));
            }
        }
        let mut machine = Self::default();
        let boot = file.boot_source.map(Component::Boot);
        let boot = boot.ok_or_else(|| Fault("the file has no `boot-source`".into()))?;
        let cpus = file.cpu_config.as_deref().map(CpuConfig::of_file);
        let all = [Component::Machine(file.machine_config), boot]
            .into_iter()
            .chain(cpus.transpose()?.map(Component::Cpus))
            .chain(file.drives.into_iter().map(Component::Drive))
            .chain(file.network_interfaces.into_iter().map(Component::Network))
            .chain(file.vsock.map(Component::Vsock))
            .chain(file.balloon.map(Component::Balloon))
            .chain(file.entropy.map(Component::Entropy))
            .chain(file.serial.map(Component::Serial))
            .chain(file.logger.map(Component::Logger))
            .chain(file.metrics.map(Component::Metrics))
            .chain(file.mmds_config.map(Component::Mmds));
        for component in all {
            machine.set(component)?;
        }
        Ok(machine)
    }

    /// Is anything described that a snapshot would bring itself?
    pub fn has_devices(&self) -> bool {
        let Self {
            balloon,
            drives,
            boot_source,
            network_interfaces,
            vsock,
            entropy,
            machine_config,
            mmds_config,
            cpus,
            ..
        } = self;
        !drives.is_empty()
            || !network_interfaces.is_empty()
            || boot_source.is_some()
            || balloon.is_some()
            || vsock.is_some()
            || entropy.is_some()
            || mmds_config.is_some()
            || *cpus != CpuConfig::default()
            || *machine_config != MachineConfig::default()
    }

    /// Describes one thing, or describes it anew.
    pub fn set(&mut self, component: Component) -> Result<(), Fault> {
        match component {
            Component::Boot(boot) => {
                readable("kernel", &boot.kernel_image_path)?;
                if let Some(path) = &boot.initrd_path {
                    readable("initrd", path)?;
                }
                self.boot_source = Some(boot);
            }
            Component::Machine(machine) => {
                check_machine(&machine)?;
                // It is as if nothing had been said, and told so.
                let cpu_template = None;
                self.machine_config = MachineConfig {
                    cpu_template,
                    ..machine
                };
            }
            Component::Cpus(cpus) => {
                cpus.check()?;
                self.cpus = cpus;
            }
            Component::Drive(drive) => self.set_drive(drive)?,
            Component::Network(interface) => self.set_interface(interface)?,
            Component::Vsock(vsock) => {
                Cid::try_from(vsock.guest_cid).map_err(|error| Fault::of(&error))?;
                self.vsock = Some(vsock);
            }
            Component::Balloon(balloon) => {
                if balloon.free_page_hinting {
                    return Err(Fault::unsupported("free_page_hinting", HINTING));
                }
                let memory = self.machine_config.mem_size_mib;
                if u64::from(balloon.amount_mib) > memory {
                    return Err(Fault(format!(
                        "The balloon of {} MiB is larger than the memory of {memory} MiB.",
                        balloon.amount_mib
                    )));
                }
                self.balloon = Some(balloon);
            }
            Component::Entropy(entropy) => {
                if entropy
                    .rate_limiter
                    .is_some_and(|limit| limit != Default::default())
                {
                    return Err(Fault::unsupported(
                        "rate_limiter of /entropy",
                        ENTROPY_LIMIT,
                    ));
                }
                self.entropy = Some(entropy);
            }
            Component::Serial(serial) => {
                if serial.rate_limiter.is_some() {
                    return Err(Fault::unsupported("rate_limiter of /serial", SERIAL_LIMIT));
                }
                self.serial = Some(serial);
            }
            Component::Logger(logger) => {
                if logger.module.is_some() {
                    return Err(Fault::unsupported("module of /logger", LOGGER_MODULE));
                }
                self.logger = Some(logger);
            }
            Component::Metrics(metrics) => {
                if self.metrics.is_some() {
                    return Err(Fault("The metrics system is initialized already.".into()));
                }
                self.metrics = Some(metrics);
            }
            Component::Mmds(config) => self.set_metadata(config)?,
        }
        Ok(())
    }

    /// Describes some of the machine anew.
    pub fn patch(&mut self, patch: MachinePatch) -> Result<(), Fault> {
        if patch == MachinePatch::default() {
            return Err(Fault("Empty PATCH request.".into()));
        }
        let mut machine = self.machine_config.clone();
        let MachinePatch {
            vcpu_count,
            mem_size_mib,
            smt,
            cpu_template,
            track_dirty_pages,
            huge_pages,
        } = patch;
        machine.vcpu_count = vcpu_count.unwrap_or(machine.vcpu_count);
        machine.mem_size_mib = mem_size_mib.unwrap_or(machine.mem_size_mib);
        machine.smt = smt.unwrap_or(machine.smt);
        machine.cpu_template = cpu_template.or(machine.cpu_template);
        machine.track_dirty_pages = track_dirty_pages.unwrap_or(machine.track_dirty_pages);
        machine.huge_pages = huge_pages.unwrap_or(machine.huge_pages);
        self.set(Component::Machine(machine))
    }

    fn set_drive(&mut self, drive: Drive) -> Result<(), Fault> {
        if drive.socket.is_some() {
            return Err(Fault::unsupported("socket of a drive", VHOST_USER));
        }
        let id = &drive.drive_id;
        let Some(path) = &drive.path_on_host else {
            return Err(Fault(format!("The drive `{id}` has no path_on_host.")));
        };
        readable("file of a drive", path)?;
        let others = || self.drives.iter().filter(|other| other.drive_id != *id);
        if drive.is_root_device && others().any(|other| other.is_root_device) {
            return Err(Fault("A root block device already exists!".into()));
        }
        match self.drives.iter_mut().find(|it| it.drive_id == *id) {
            Some(known) => *known = drive,
            None => self.drives.push(drive),
        }
        Ok(())
    }

    fn set_interface(&mut self, interface: NetworkInterface) -> Result<(), Fault> {
        if interface.mtu.is_some() {
            return Err(Fault::unsupported("mtu of an interface", TAP_MTU));
        }
        if let Some(mac) = &interface.guest_mac {
            mac.parse::<MacAddress>()
                .map_err(|error| Fault::of(&error))?;
        }
        let id = &interface.iface_id;
        let mut others = self
            .network_interfaces
            .iter()
            .filter(|it| it.iface_id != *id);
        if let Some(other) = others.find(|it| {
            it.host_dev_name == interface.host_dev_name
                || it.guest_mac.is_some() && it.guest_mac == interface.guest_mac
        }) {
            return Err(Fault(format!(
                "The interface `{}` has that host_dev_name or guest_mac already.",
                other.iface_id
            )));
        }
        let mut known = self.network_interfaces.iter_mut();
        match known.find(|it| it.iface_id == *id) {
            Some(known) => *known = interface,
            None => self.network_interfaces.push(interface),
        }
        Ok(())
    }
}

impl Machine {
    fn set_metadata(&mut self, config: MmdsConfig) -> Result<(), Fault> {
        let [first, second, third, _] = config.address().octets();
        // RFC 3927 §2.1: the first and the last 256 are for nobody.
        if (first, second) != (169, 254) || [0, 255].contains(&third) {
            return Err(Fault("The MMDS IPv4 address is not link local.".into()));
        }
        let interfaces = &config.network_interfaces;
        if interfaces.is_empty() {
            return Err(Fault(
                "The list of network interface IDs that allow forwarding MMDS requests is empty."
                    .into(),
            ));
        }
        let known = |id: &String| self.network_interfaces.iter().any(|it| it.iface_id == *id);
        if let Some(id) = interfaces.iter().find(|id| !known(id)) {
            return Err(Fault(format!(
                "MMDS is to be found on `{id}`, which is no network interface (PUT /network-interfaces/{id} makes one)."
            )));
        }
        self.mmds_config = Some(config);
        Ok(())
    }

    /// The places of the interfaces on which a guest finds metadata.
    pub fn with_metadata(&self) -> impl Iterator<Item = usize> {
        let ids = self
            .mmds_config
            .iter()
            .flat_map(|it| &it.network_interfaces);
        let ids: Vec<&String> = ids.collect();
        let nets = self.network_interfaces.iter().enumerate();
        let found = nets.filter(move |(_, it)| ids.contains(&&it.iface_id));
        found.map(|(place, _)| place)
    }
}

fn check_machine(machine: &MachineConfig) -> Result<(), Fault> {
    const LARGEST: u8 = match VcpuCount::MAX < MOST_VCPUS {
        true => VcpuCount::MAX,
        false => MOST_VCPUS,
    };
    if !(1..=LARGEST).contains(&machine.vcpu_count) {
        return Err(Fault(format!(
            "The vCPU number is invalid! It has to be from 1 to {LARGEST}."
        )));
    }
    if machine.mem_size_mib == 0 {
        return Err(Fault("The memory size (MiB) is invalid.".into()));
    }
    if machine.smt {
        return Err(Fault::unsupported("smt", SMT));
    }
    if machine.huge_pages == HugePages::Hugetlbfs2M && !machine.mem_size_mib.is_multiple_of(2) {
        return Err(Fault(
            "The memory size (MiB) is not a multiple of the page size, which is 2.".into(),
        ));
    }
    match machine.cpu_template {
        None | Some(CpuTemplate::None) => Ok(()),
        Some(name) => Err(Fault(format!(
            "cpu_template `{name:?}` is not supported: {CPU_TEMPLATE} tests/data/custom_cpu_templates/{name:?}.json."
        ))),
    }
}

/// Why what is known there cannot be here.
pub const SMT: &str = "the guest has a core for each vCPU, and no hyperthreads";
const CPU_TEMPLATE: &str = "the guest sees the host's processor without what KVM does not offer. PUT /cpu-config changes that, and takes what Firecracker's sources have for this name in";
pub const PMEM: (&str, &str) = ("pmem", "there are no virtio-pmem devices");
pub const HOTPLUG: (&str, &str) = ("memory-hotplug", "guest memory has one size");
pub const PCI: &str = "devices are there when the guest boots, or never";
const HINTING: &str = "the guest reports free pages by free_page_reporting";
const ENTROPY_LIMIT: &str = "entropy has a limit of its own, which all guests have";
const SERIAL_LIMIT: &str = "the serial port has none";
const LOGGER_MODULE: &str = "messages have levels, and no modules";
const TAP_MTU: &str = "the guest is told the tap's own, which who makes that sets up";
const VHOST_USER: &str = "a drive is a file or a block device (path_on_host)";

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
