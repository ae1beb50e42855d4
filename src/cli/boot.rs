//! `kvmlet boot`: one VM in the foreground.

use super::console::{Console, End};
use super::stats::StatsSink;
use super::supervisor::supervise;
use super::{Failed, Outcome, defaults};
use crate::config::{CpuMask, Disk, HugePages, Memory, Net, PortMapping, VmConfigBuilder};
use crate::host;
use crate::vm::{Phase, set_up_networks};
use crate::{Error, Vm, VmConfig, VmHandle};
use clap::{Args, ValueEnum};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Boot a guest in a microVM, connect it to this terminal, and end with its exit code.
///
/// Without --kernel and --initrd, boots the kernel that `kernels/build` and the root that `images/build
/// minimal` have left in the cache. Ctrl-] ends the VM from the keyboard.
#[derive(Args)]
#[command(after_help = "\
Exit codes: the service's own code; 125 if kvmlet fails, 129 if the guest asked for a reset, 134 if its \
kernel panicked, 139 if it crashed with a triple fault, 128+N if kvmlet was ended by signal N.")]
pub(super) struct Boot {
    /// Guest kernel: an ELF vmlinux or a bzImage.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line, instead of "console=ttyS0 reboot=k panic=-1 loglevel=7".
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// Number of vCPUs [default: 1].
    #[arg(long, value_name = "N")]
    cpus: Option<u64>,
    /// Guest memory, with a unit: 512M, 2G [default: 128M].
    #[arg(short, long, value_name = "SIZE")]
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
    /// Read the configuration from a JSON file; flags override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Image of a root file system (erofs or ext4), shared and only read: changes go to guest memory.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Disk of the VM's own (ext4) that keeps the changes of the root.
    #[arg(long, value_name = "FILE", requires = "root")]
    scratch: Option<PathBuf>,
    /// One more disk: FILE[,ro][,direct][,cache=writethrough][,id=NAME][,queues=N][,io=sync]
    /// [,bandwidth=SIZE][,burst=SIZE][,iops=N][,iops-burst=N]; can be given again.
    #[arg(long, value_name = "DISK")]
    disk: Vec<Disk>,
    /// A network interface. Alone: kvmlet makes a tap with addresses and a way out. With keys:
    /// tap=NAME (one that exists), mac=, mtu=, queues=, subnet=, and with rx- or tx- before them the limits of
    /// a direction: bandwidth=, burst=, packets=, packets-burst=.
    #[arg(long, value_name = "KEYS", num_args = 0..=1, default_missing_value = "")]
    net: Vec<Net>,
    /// Make a port of the host lead to the guest: [ADDRESS:]HOST:GUEST[/tcp|udp]; implies --net.
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<PortMapping>,
    /// Write statistics to a file as JSON, when the VM ends and on SIGUSR1.
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Set an environment variable of the service; without a value, pass on the one set here.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Directory in which the service starts.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Host name of the guest.
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
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

impl Boot {
    pub fn run(self, started: Instant) -> Outcome {
        let stats = self.stats.clone();
        let config = self.config()?;
        if let Err(error) = host::net::reap_stale(&host::runtime_directory()) {
            log::warn!("what killed VMs have left over was not cleared: {error}");
        }
        let console = Console::take().map_err(Failed::new)?;
        if !console.is_interactive() {
            let networks = set_up_networks(&config)?;
            return supervise(console, networks, stats, |given| {
                let output = console_output()?;
                let vm = Vm::with_endpoints(config, output, given.endpoints)?.start()?;
                attend(given.console, &vm, &given.stats, started)
            });
        }
        let vm = Vm::with_console(config, console_output()?)?.start()?;
        let stats = stats.map_or(StatsSink::Nowhere, StatsSink::File);
        attend(console, &vm, &stats, started)
    }

    /// The file's configuration, overridden by flags, and defaults where neither says anything.
    fn config(self) -> Result<VmConfig, Failed> {
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
        if let Some(root) = self.root {
            config = config.root(root);
        }
        if let Some(scratch) = self.scratch {
            config = config.scratch(scratch);
        }
        for disk in self.disk {
            config = config.disk(disk);
        }
        for net in self.net {
            config = config.net(net);
        }
        for mapping in self.publish {
            config = config.publish(mapping);
        }
        for variable in &self.env {
            config = match variable.split_once('=') {
                Some((name, value)) => config.env(name, value),
                // As docker does: a variable that is not set here is not set there.
                None => match std::env::var(variable) {
                    Ok(value) => config.env(variable, value),
                    Err(_) => config,
                },
            };
        }
        if let Some(directory) = self.workdir {
            config = config.workdir(directory);
        }
        if let Some(name) = self.hostname {
            config = config.hostname(name);
        }
        if !self.command.is_empty() {
            config = config.command(self.command);
        }
        with_default_guest(config)?
            .build()
            .map_err(|error| Error::from(error).into())
    }
}

fn read_config(path: &Path) -> Result<VmConfigBuilder, Failed> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Open {
        what: "configuration",
        path: path.into(),
        source,
    })?;
    VmConfigBuilder::from_json(&text).map_err(|error| {
        Failed::new(format!("configuration `{}`: {error}", path.display()))
            .help("the README lists all keys")
    })
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
    let kernel =
        defaults::kernel().ok_or_else(|| Error::from(crate::config::Error::KernelMissing))?;
    if !kernel.exists() {
        return Err(missing("kernel", kernel, "kernels/build"));
    }
    let config = config.kernel(kernel);
    if config.has_initrd() {
        return Ok(config);
    }
    // With a root on a disk, the initrd only has to find it.
    let image = if config.has_root() { "init" } else { "minimal" };
    match defaults::initrd(image) {
        Some(initrd) if initrd.exists() => Ok(config.initrd(initrd)),
        Some(initrd) => Err(missing("initrd", initrd, &format!("images/build {image}"))),
        None => Ok(config),
    }
}

/// Connects a VM that runs to its user until it ends, and tells how it has.
fn attend(console: Console, vm: &VmHandle, stats: &StatsSink, started: Instant) -> Outcome {
    let put = || stats.put(vm, started);
    let end = console.attend(vm, put);
    drop(console);
    put();
    report(vm, started);
    match end? {
        End::Guest(reason) => {
            log::info!("{reason}");
            Ok(reason.exit_code())
        }
        End::Escape => Ok(0),
        End::Signal(signal) => {
            log::info!("ended by signal {signal}");
            Ok(128 + signal as u8)
        }
    }
}

/// Standard output without Rust's line buffer: a guest's prompt has no line end.
fn console_output() -> Result<File, Failed> {
    let fd = rustix::io::dup(rustix::stdio::stdout())
        .map_err(|error| Failed::new(format!("standard output cannot be used: {error}")))?;
    Ok(File::from(fd))
}

/// Times since the process started, as far as the guest has told them.
fn report(vm: &VmHandle, started: Instant) {
    let trace = vm.boot_trace();
    for (phase, time) in trace.phases() {
        log::debug!("{:<14} {:>8.3} ms", phase.name(), time.as_secs_f64() * 1e3);
    }
    let since = |at: Instant| at.saturating_duration_since(started).as_secs_f64() * 1e3;
    if let Some(at) = trace.done_at(Phase::FirstEntry) {
        log::info!(
            "the guest was entered {:.3} ms after the process started",
            since(at)
        );
    }
    if let Some(at) = trace.done_at(Phase::GuestReady) {
        eprintln!(
            "kvmlet: the guest was ready {:.3} ms after the process started",
            since(at)
        );
    }
    for (number, stats) in vm.vcpu_stats().into_iter().enumerate() {
        log::debug!("vCPU {number}: {stats:?}");
    }
}
