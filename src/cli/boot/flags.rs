//! The flags that describe a VM, and the configuration that they make.

use super::quota::QuotaFlags;
use super::walls::WallFlags;
use crate::Failed;
use clap::{Args, ValueEnum};
use kvmlet_host::state::built;
use kvmlet_spec::{
    Balloon, CpuMask, CpuQuota, CpuidChange, DEFAULT_CMDLINE, Disk, HugePages, Memory, MsrChange,
    NameServer, Net, PortMappings, Scratch, Setting, VcpuCount, VmConfig, VmConfigBuilder, Vsock,
};
use kvmlet_sys::{environment, regular};
use kvmlet_vmm::Error;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What the VM is. All can be said in a file, too.
#[derive(Args)]
pub(super) struct Flags {
    #[arg(long = Setting::Kernel.flag(), value_name = Setting::Kernel.value(), help = Setting::Kernel.help())]
    kernel: Option<PathBuf>,
    #[arg(long = Setting::Initrd.flag(), value_name = Setting::Initrd.value(), help = Setting::Initrd.help())]
    initrd: Option<PathBuf>,
    #[arg(long = Setting::Cmdline.flag(), value_name = Setting::Cmdline.value(), help = Setting::Cmdline.help())]
    cmdline: Option<String>,
    #[arg(long = Setting::Vcpus.flag(), value_name = Setting::Vcpus.value(), allow_negative_numbers = true, value_parser = cpus, help = Setting::Vcpus.help())]
    cpus: Option<u64>,
    #[arg(short, long = Setting::Memory.flag(), value_name = Setting::Memory.value(), allow_hyphen_values = true, help = Setting::Memory.help())]
    memory: Option<Memory>,
    #[arg(long = Setting::HugePages.flag(), value_name = Setting::HugePages.value(), value_enum, help = Setting::HugePages.help())]
    huge_pages: Option<Pages>,
    #[arg(long = Setting::Prefault.flag(), help = Setting::Prefault.help())]
    prefault: bool,
    #[arg(long = Setting::CpuMask.flag(), value_name = Setting::CpuMask.value(), help = Setting::CpuMask.help())]
    cpu_mask: Option<CpuMask>,
    #[arg(long = Setting::Cpuid.flag(), value_name = Setting::Cpuid.value(), help = Setting::Cpuid.help())]
    cpuid: Vec<CpuidChange>,
    #[arg(long = Setting::Msr.flag(), value_name = Setting::Msr.value(), help = Setting::Msr.help())]
    msr: Vec<MsrChange>,
    #[arg(long = Setting::Nested.flag(), help = Setting::Nested.help())]
    nested: bool,
    #[arg(long = Setting::Pmu.flag(), help = Setting::Pmu.help())]
    pmu: bool,
    #[arg(long = Setting::Pci.flag(), help = Setting::Pci.help())]
    pci: bool,
    #[command(flatten)]
    quota: QuotaFlags,
    /// Read the configuration from a JSON file, `-` for standard input; flags override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long = Setting::Root.flag(), value_name = Setting::Root.value(), help = Setting::Root.help())]
    root: Option<PathBuf>,
    #[arg(long = Setting::ReadOnly.flag(), requires = "root", conflicts_with = "scratch", help = Setting::ReadOnly.help())]
    read_only: bool,
    #[arg(long = Setting::Scratch.flag(), value_name = Setting::Scratch.value(), requires = "root", help = Setting::Scratch.help())]
    scratch: Option<Scratch>,
    #[arg(long = Setting::Disks.flag(), value_name = Setting::Disks.value(), help = Setting::Disks.help())]
    disk: Vec<Disk>,
    #[arg(long = Setting::Nets.flag(), value_name = Setting::Nets.value(), num_args = 0..=1, default_missing_value = "", help = Setting::Nets.help())]
    net: Vec<Net>,
    #[arg(long = Setting::Balloon.flag(), value_name = Setting::Balloon.value(), num_args = 0..=1, default_missing_value = "", help = Setting::Balloon.help())]
    balloon: Option<Balloon>,
    #[arg(long = Setting::Vsock.flag(), value_name = Setting::Vsock.value(), help = Setting::Vsock.help())]
    vsock: Option<Vsock>,
    #[arg(long = Setting::Rng.flag(), help = Setting::Rng.help())]
    no_rng: bool,
    #[arg(long = Setting::Poll.flag(), help = Setting::Poll.help())]
    no_poll: bool,
    #[arg(short, long = Setting::Publish.flag(), value_name = Setting::Publish.value(), help = Setting::Publish.help())]
    publish: Vec<PortMappings>,
    #[arg(long = Setting::Dns.flag(), value_name = Setting::Dns.value(), help = Setting::Dns.help())]
    dns: Vec<NameServer>,
    #[arg(short, long = Setting::Env.flag(), value_name = Setting::Env.value(), help = Setting::Env.help())]
    env: Vec<String>,
    #[arg(short, long = Setting::Workdir.flag(), value_name = Setting::Workdir.value(), help = Setting::Workdir.help())]
    workdir: Option<String>,
    #[arg(long = Setting::Hostname.flag(), value_name = Setting::Hostname.value(), help = Setting::Hostname.help())]
    hostname: Option<String>,
    #[arg(long = Setting::StopTimeout.flag(), value_name = Setting::StopTimeout.value(), allow_negative_numbers = true, value_parser = seconds, help = Setting::StopTimeout.help())]
    stop_timeout: Option<u32>,
    #[arg(long = Setting::Stats.flag(), value_name = Setting::Stats.value(), help = Setting::Stats.help())]
    stats: Option<PathBuf>,
    #[command(flatten)]
    walls: WallFlags,
    #[arg(last = true, value_name = Setting::Command.value(), help = Setting::Command.help())]
    command: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Pages {
    /// 4 KiB pages.
    Off,
    /// 2 MiB pages where the kernel finds them.
    Transparent,
    /// 2 MiB pages from the host's reserved pool.
    Reserved,
}

impl From<Pages> for HugePages {
    fn from(pages: Pages) -> Self {
        match pages {
            Pages::Off => HugePages::Off,
            Pages::Transparent => HugePages::Transparent,
            Pages::Reserved => HugePages::Reserved,
        }
    }
}

impl Flags {
    /// The file's configuration, overridden by flags, and defaults where neither says anything.
    pub fn config(self) -> Result<VmConfig, Failed> {
        let mut config = match &self.config {
            Some(path) => read_config(path)?,
            None => VmConfig::builder(),
        };
        if let Some(kernel) = self.kernel {
            config = config.kernel(kernel);
        }
        if let Some(initrd) = self.initrd {
            config = config.initrd(initrd);
        }
        if let Some(cmdline) = self.cmdline {
            config = config.cmdline(cmdline);
        }
        if let Some(cpus) = self.cpus {
            config = config.vcpus(cpus);
        }
        if let Some(memory) = self.memory {
            config = config.memory(memory);
        }
        if let Some(pages) = self.huge_pages {
            config = config.huge_pages(pages.into());
        }
        if self.prefault {
            config = config.prefault(true);
        }
        if let Some(mask) = self.cpu_mask {
            config = config.cpu_mask(mask);
        }
        config = self.cpuid.into_iter().fold(config, VmConfigBuilder::cpuid);
        config = self.msr.into_iter().fold(config, VmConfigBuilder::msr);
        if self.nested {
            config = config.nested(true);
        }
        if self.pmu {
            config = config.pmu(true);
        }
        if self.pci {
            config = config.pci(true);
        }
        config = self.quota.apply(config);
        if let Some(root) = self.root {
            config = config.root(root);
        }
        if self.read_only {
            config = config.read_only(true);
        }
        if let Some(scratch) = self.scratch {
            config = config.scratch(scratch.path);
            if let Some(size) = scratch.size {
                config = config.scratch_size(size);
            }
        }
        for disk in self.disk {
            config = config.disk(disk);
        }
        for net in self.net {
            config = config.net(net);
        }
        if let Some(balloon) = self.balloon {
            config = config.balloon(balloon);
        }
        if let Some(vsock) = self.vsock {
            config = config.vsock(vsock);
        }
        if self.no_rng {
            config = config.rng(false);
        }
        if self.no_poll {
            config = config.poll(false);
        }
        for mapping in self.publish.into_iter().flatten() {
            config = config.publish(mapping);
        }
        for server in self.dns {
            config = config.dns(server.0);
        }
        for variable in &self.env {
            if let Some((name, value)) = variable_of(variable)? {
                config = config.env(name, value);
            }
        }
        if let Some(directory) = self.workdir {
            config = config.workdir(directory);
        }
        if let Some(name) = self.hostname {
            config = config.hostname(name);
        }
        if let Some(timeout) = self.stop_timeout {
            config = config.stop_timeout(timeout);
        }
        if let Some(path) = self.stats {
            config = config.stats(path);
        }
        config = self.walls.apply(config);
        if !self.command.is_empty() {
            config = config.command(self.command);
        }
        if !config.has_cmdline() && log::max_level() >= log::LevelFilter::Info {
            // Whoever wants to know what happens wants to know it of the kernel, too.
            config = config.cmdline(format!("{DEFAULT_CMDLINE} loglevel=7"));
        }
        with_default_guest(config)?
            .build()
            .map_err(|error| Error::from(error).into())
    }
}

/// A number of vCPUs; its limits are those of the configuration.
fn cpus(text: &str) -> Result<u64, String> {
    let number = text.parse();
    number.map_err(|_| {
        let most = VcpuCount::MAX;
        let dockers = match text.parse::<CpuQuota>() {
            Ok(quota) => format!("; docker's `--cpus {quota}` is `--cpu-quota {quota}` here"),
            Err(_) => String::new(),
        };
        format!("a number of vCPUs is a whole number from 1 to {most}{dockers}")
    })
}

fn seconds(text: &str) -> Result<u32, String> {
    let number = text.parse();
    number.map_err(|_| "a time is a whole number of seconds from 0".into())
}

/// Name and value that `--env` gives to the service, if any.
fn variable_of(written: &str) -> Result<Option<(&str, String)>, Failed> {
    if let Some((name, value)) = written.split_once('=') {
        return Ok(Some((name, value.into())));
    }
    if written.is_empty() {
        return Ok(Some(("", String::new()))); // refused as every name that is not one
    }
    // As docker does: a variable that is not set here is not set there.
    match environment::data(written).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some((written, value))),
        Some(Err(_)) => {
            let error = format!(
                "the value that `{}` has here is not UTF-8, and a guest is told text only",
                written.escape_debug()
            );
            Err(Failed::new(error).help(format!("give a value: --env {written}=VALUE")))
        }
    }
}

/// More than any configuration has, and little enough to read before its end is looked for.
const CONFIG_BYTES: u64 = 1 << 20;

pub(super) fn read_config(path: &Path) -> Result<VmConfigBuilder, Failed> {
    let (name, bytes) = match path.as_os_str() == "-" {
        // The guest's console reads on behind it: nothing, unless this is a terminal.
        true => ("on standard input".to_string(), read_some(io::stdin())),
        false => {
            let bytes = regular::read(path, CONFIG_BYTES + 1);
            (format!("`{}`", path.display()), bytes)
        }
    };
    let bytes = bytes.map_err(|source| {
        let error = Error::Open {
            what: "configuration",
            path: path.into(),
            source,
        };
        Failed::from(error).help("name a JSON file, or `-` for standard input")
    })?;
    let wrong = |what: &str| Failed::new(format!("configuration {name} {what}"));
    if bytes.len() as u64 > CONFIG_BYTES {
        return Err(wrong("is longer than 1 MiB")
            .help("name a JSON file; disks and kernels have keys in it"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| wrong("is not UTF-8").help("a configuration is JSON text"))?;
    builder(&text, &name)
}

/// What a configuration says, which is called that.
pub(super) fn builder(json: &str, name: &str) -> Result<VmConfigBuilder, Failed> {
    VmConfigBuilder::from_json(json).map_err(|error| {
        let help = match error {
            kvmlet_spec::Error::Json { is_json: false, .. } => {
                "a configuration is JSON, such as {\"kernel\": \"vmlinux\", \"memory\": \"512M\"}"
            }
            _ => "docs/reference.md lists all keys",
        };
        Failed::in_vain(format!("configuration {name}"), error).help(help)
    })
}

/// Reads up to the end, or a byte more than a configuration can have.
fn read_some(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(CONFIG_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A kernel of the user's own comes with an initrd of the user's own, or none.
pub(crate) fn with_default_guest(config: VmConfigBuilder) -> Result<VmConfigBuilder, Failed> {
    if config.has_kernel() {
        return Ok(config);
    }
    let config = with_default_kernel(config)?;
    if config.has_initrd() {
        return Ok(config);
    }
    // With a root on a disk, the initrd only has to find it.
    let image = if config.has_root() { INIT } else { "minimal" };
    let initrd = built::initrd(image);
    match initrd.exists() {
        true => Ok(config.initrd(initrd)),
        false => Err(missing("initrd", &initrd, &format!("images/build {image}"))),
    }
}

/// The same, where the guest's first process is kvmlet's, which hears what is to run. A kernel of the user's own has it, too, if it
/// is there: one that is no Linux needs none.
pub(crate) fn with_agent(config: VmConfigBuilder) -> Result<VmConfigBuilder, Failed> {
    if !config.has_kernel() {
        return with_default_guest(config);
    }
    let initrd = built::initrd(INIT);
    Ok(match initrd.exists() {
        true => config.initrd(initrd),
        false => config,
    })
}

/// What is to be done where a kernel of the user's own has found nothing to start.
pub(crate) fn help_without_init() -> String {
    let initrd = built::initrd(INIT);
    format!(
        "a Linux kernel starts kvmlet's init, and there is none at `{}`: run `images/build {INIT}` once in a checkout of kvmlet",
        initrd.display()
    )
}

/// The initrd with nothing but kvmlet's init.
const INIT: &str = "init";

fn with_default_kernel(config: VmConfigBuilder) -> Result<VmConfigBuilder, Failed> {
    let kernel = built::kernel();
    match kernel.exists() {
        true => Ok(config.kernel(kernel)),
        false => Err(missing("kernel", &kernel, "kernels/build")),
    }
}

fn missing(what: &str, path: &Path, script: &str) -> Failed {
    let text = format!("there is no default {what} at `{}`", path.display());
    let help =
        format!("run `{script}` once in a checkout of kvmlet; `kvmlet boot` takes --{what}, too");
    Failed::new(text).help(help)
}
