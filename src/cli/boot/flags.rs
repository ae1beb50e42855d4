//! The flags that describe a VM, and the configuration that they make.

use super::quota::QuotaFlags;
use crate::Failed;
use crate::config::{
    Balloon, CpuMask, DEFAULT_CMDLINE, Disk, HugePages, JailMode, Memory, NameServer, Net,
    PortMappings, Scratch, VcpuCount, VmConfigBuilder,
};
use crate::host::built;
use crate::host::environment;
use crate::{Error, VmConfig, config};
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What the VM is. All can be said in a file, too.
#[derive(Args)]
pub(super) struct Flags {
    /// Guest kernel: an ELF vmlinux or a bzImage.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line, instead of "console=ttyS0 reboot=k panic=-1 quiet"; with -v, "loglevel=7" is last.
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// Number of vCPUs [default: 1].
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = cpus)]
    cpus: Option<u64>,
    /// Guest memory, with a unit: 512M, 2G [default: 128M].
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<Memory>,
    /// Which pages back guest memory.
    #[arg(long, value_name = "KIND", value_enum)]
    huge_pages: Option<Pages>,
    /// Touch all guest memory before the guest starts.
    #[arg(long)]
    prefault: bool,
    /// CPUID bits to hide from the guest, by the names of /proc/cpuinfo.
    #[arg(long, value_name = "NAME,...")]
    cpu_mask: Option<CpuMask>,
    /// Let the guest run virtual machines of its own (VT-x or SVM).
    #[arg(long)]
    nested: bool,
    /// Give the guest performance counters.
    #[arg(long)]
    pmu: bool,
    #[command(flatten)]
    quota: QuotaFlags,
    /// Read the configuration from a JSON file, `-` for standard input; flags override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Image of a root file system (erofs or ext4), shared and only read: changes go to guest memory.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Disk of the VM's own (ext4) that keeps the changes of the root.
    /// FILE[,size=SIZE]: with a size, a file that is not there is made.
    #[arg(long, value_name = "DISK", requires = "root")]
    scratch: Option<Scratch>,
    /// One more disk: FILE[,ro][,direct][,cache=writethrough][,format=raw][,id=NAME][,queues=N][,io=sync]
    /// [,bandwidth=SIZE][,burst=SIZE][,iops=N][,iops-burst=N]; can be given again.
    #[arg(long, value_name = "DISK")]
    disk: Vec<Disk>,
    /// A network interface. Alone: kvmlet makes a tap with addresses and a way out. With keys:
    /// tap=NAME (one that exists), egress=none|internet|all (what the guest reaches), mac=, mtu=, queues=, subnet=, and with rx- or tx- before them the limits of
    /// a direction: bandwidth=, burst=, packets=, packets-burst=.
    #[arg(long, value_name = "KEYS", num_args = 0..=1, default_missing_value = "")]
    net: Vec<Net>,
    /// A memory balloon that gives idle memory back. Alone: free memory is reported. With keys:
    /// size=SIZE (what it takes from the guest at once), deflate-on-oom=off, reporting=off.
    #[arg(long, value_name = "KEYS", num_args = 0..=1, default_missing_value = "")]
    balloon: Option<Balloon>,
    /// Leave out the entropy source: for guests that trust their processor's.
    #[arg(long)]
    no_rng: bool,
    /// Make a port of the host lead to the guest: [ADDRESS:][HOST:]GUEST[/tcp|udp], where ADDRESS is an IPv4 address, an
    /// IPv6 address in brackets or `localhost`, and ports may be ranges (8000-8010:80-90); implies --net. Without HOST the
    /// host chooses one, which is printed.
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<PortMappings>,
    /// A name server that the host asks for the guest, instead of its own; can be given again.
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<NameServer>,
    /// Set an environment variable of the service; without a value, pass on the one set here.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Directory in which the service starts.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Host name of the guest.
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// How long the service may take to end when kvmlet is told to: then it is killed, and 5 seconds later the guest's
    /// power is cut [default: 10].
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    stop_timeout: Option<u32>,
    /// Write statistics to a file as JSON, when the VM ends and on SIGUSR1; `-` is standard output, behind
    /// what the guest has written.
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Confine the VM's process: it has nothing of the host but what is opened for it. This is the default as far as
    /// the host can; asked for, what the host cannot do is an error.
    #[arg(long, overrides_with = "no_jail")]
    jail: bool,
    /// Do not confine the VM's process.
    #[arg(long, overrides_with = "jail")]
    no_jail: bool,
    /// Go on, with a warning, where this host cannot hold the VM to what is asked for.
    #[arg(long)]
    best_effort: bool,
    /// The service to run, with its arguments, instead of the image's own.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Pages {
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
        if self.nested {
            config = config.nested(true);
        }
        if self.pmu {
            config = config.pmu(true);
        }
        config = self.quota.apply(config);
        if let Some(root) = self.root {
            config = config.root(root);
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
        if self.no_rng {
            config = config.rng(false);
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
        match (self.jail, self.no_jail) {
            (true, _) => config = config.jail(JailMode::Required),
            (false, true) => config = config.jail(JailMode::Off),
            (false, false) => {}
        }
        if self.best_effort {
            config = config.best_effort(true);
        }
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
        format!(
            "a number of vCPUs is a whole number from 1 to {}",
            VcpuCount::MAX
        )
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

fn read_config(path: &Path) -> Result<VmConfigBuilder, Failed> {
    let (name, bytes) = match path.as_os_str() == "-" {
        // The guest's console reads on behind it: nothing, unless this is a terminal.
        true => ("on standard input".to_string(), read_some(io::stdin())),
        false => {
            let bytes = File::open(path).and_then(read_some);
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
    VmConfigBuilder::from_json(&text).map_err(|error| {
        let help = match error {
            config::Error::Json { is_json: false, .. } => {
                "a configuration is JSON, such as {\"kernel\": \"vmlinux\", \"memory\": \"512M\"}"
            }
            _ => "docs/boot.md lists all keys",
        };
        Failed::new(format!("configuration {name}: {error}")).help(help)
    })
}

/// Reads up to the end, or a byte more than a configuration can have.
fn read_some(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(CONFIG_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A kernel of the user's own comes with an initrd of the user's own, or none.
fn with_default_guest(config: VmConfigBuilder) -> Result<VmConfigBuilder, Failed> {
    if config.has_kernel() {
        return Ok(config);
    }
    let missing = |what: &str, path: PathBuf, script: &str| {
        Failed::new(format!(
            "there is no default {what} at `{}`",
            path.display()
        ))
        .help(format!("run `{script}` once, or pass --{what}"))
    };
    let kernel = built::kernel().ok_or_else(|| Error::from(crate::config::Error::KernelMissing))?;
    if !kernel.exists() {
        return Err(missing("kernel", kernel, "kernels/build"));
    }
    let config = config.kernel(kernel);
    if config.has_initrd() {
        return Ok(config);
    }
    // With a root on a disk, the initrd only has to find it.
    let image = if config.has_root() { "init" } else { "minimal" };
    match built::initrd(image) {
        Some(initrd) if initrd.exists() => Ok(config.initrd(initrd)),
        Some(initrd) => Err(missing("initrd", initrd, &format!("images/build {image}"))),
        None => Ok(config),
    }
}
