//! Docker's flags, and what is asked by them.

use super::changes::Changes;
use super::described::Described;
use super::env_file;
use super::health::HealthFlags;
use super::idle;
use super::image::Pull;
use super::mounts::Mounts;
use super::root::Root;
use crate::Failed;
use crate::boot::with_agent;
use crate::size::size;
use clap::Args;
use kvmlet_image::config::{self as image, ImageConfig};
use kvmlet_manager::{Asked, Book, InstanceId, LockedVolumes, LogLimits, Name};
use kvmlet_spec::supervision::{RestartPolicy, Span};
use kvmlet_spec::{
    CgroupParent, CpuQuota, CpuSet, CpuWeight, HostAddress, HostPort, Memory, NameServer, Net,
    Overcommit, PortMapping, PortMappings, Protocol, Setting, VmConfig, VmConfigBuilder,
};
use kvmlet_vmm::Error;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

/// What is asked, but for the image and the command.
#[derive(Args)]
pub(super) struct Flags {
    /// What the instance is called [default: two words at random].
    #[arg(long, value_name = "NAME")]
    pub name: Option<Name>,
    /// When the image is pulled from its registry.
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub pull: Pull,
    /// Remove it when it has ended.
    #[arg(long)]
    rm: bool,
    /// When it is started again by itself: no, on-failure[:N], always, unless-stopped.
    #[arg(long, value_name = "POLICY", default_value_t, conflicts_with = "rm")]
    restart: RestartPolicy,
    /// Suspend it when nobody has used it for that long, and have it go on when a packet comes for it: 5m, 1h30m.
    #[arg(long, value_name = "TIME", value_parser = Asked::idle_time)]
    idle: Option<Span>,
    /// CPU time that it may use, in CPUs: 1.5, on 2 vCPUs.
    #[arg(long, value_name = "CPUS", allow_negative_numbers = true)]
    cpus: Option<CpuQuota>,
    /// Number of vCPUs [default: as many as --cpus takes, or 1].
    #[arg(long, value_name = "N")]
    vcpus: Option<u64>,
    /// CPUs of the host on which it may run: 0,2-3.
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<CpuSet>,
    /// Its weight when CPUs are short, 2 to 262144; 1024 is usual.
    #[arg(short = 'c', long, value_name = "N", value_parser = weight)]
    cpu_shares: Option<CpuWeight>,
    #[arg(long = Setting::CgroupParent.flag(), value_name = Setting::CgroupParent.value(), help = Setting::CgroupParent.help())]
    cgroup_parent: Option<CgroupParent>,
    #[arg(long = Setting::Overcommit.flag(), value_name = Setting::Overcommit.value(), help = Setting::Overcommit.help())]
    overcommit: Option<Overcommit>,
    #[arg(long = Setting::BestEffort.flag(), help = Setting::BestEffort.help())]
    best_effort: bool,
    /// Guest memory: 512m, 1.5g [default: 128m].
    #[arg(short, long, value_name = "SIZE", value_parser = memory)]
    memory: Option<Memory>,
    /// Make a port of the host lead to it: [ADDRESS:][HOST:]GUEST[/tcp|udp]; ports may be ranges.
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<PortMappings>,
    /// Make ports of the host's choice lead to all that the image says it listens on.
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// An interface, with keys as for `kvmlet boot`. A published port has one without this.
    #[arg(long, value_name = "KEYS", num_args = 0..=1, default_missing_value = "", require_equals = true)]
    pub net: Vec<Net>,
    /// A name server that is asked for it; can be given again.
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<NameServer>,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    pub mounts: Mounts,
    #[command(flatten)]
    pub described: Described,
    #[command(flatten)]
    health: HealthFlags,
    /// Note something about it; can be given again.
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = label)]
    label: Vec<(String, String)>,
    /// File of such notes, a line each; can be given again.
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// How much of what it writes is kept: max-size=10m, max-file=3 (these are the defaults); can be given again.
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
    /// Guest kernel, instead of the one that `kernels/build` has left in the cache.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
}

impl Flags {
    /// Does it run, or not, without anybody's wish?
    pub fn goes_on_by_itself(&self) -> bool {
        self.idle.is_some() || self.restart != RestartPolicy::default()
    }

    /// What is asked of a new instance.
    pub fn asked(
        self,
        id: InstanceId,
        book: &Book,
        image: &Path,
        root: &Root,
        command: Vec<OsString>,
        volumes: Option<&LockedVolumes<'_>>,
    ) -> Result<Asked, Failed> {
        let mut asked = Asked::new(id, image.display().to_string());
        let of_image = root.config();
        asked.image_id = root.image_id();
        asked.command = self.described.command(of_image, command)?;
        // Who brings a kernel may bring what it runs.
        if self.kernel.is_none() {
            root.refuse_silent(&asked.command)?;
        }
        asked.restart = self.restart;
        asked.idle = self.idle;
        asked.health = self.health.check(
            self.restart,
            of_image.and_then(|image| image.health.as_ref()),
        )?;
        asked.remove = self.rm;
        asked.log = log_limits(&self.log_opt)?;
        asked.labels = self.labels(of_image)?;
        asked.service = self.described.service(&asked, of_image)?;
        let prepared = self.mounts.prepare(book, volumes, &asked, of_image)?;
        asked.service.mounts = prepared.mounts;
        let ports = match self.publish_all {
            true => exposed(of_image, &self.publish),
            false => Vec::new(),
        };
        let config = VmConfig::builder().root(root.source(book, &asked)?);
        let config = self.changes.apply(config, book, &asked)?;
        let config = prepared
            .disks
            .into_iter()
            .fold(config, VmConfigBuilder::disk);
        let config = self.config(config, ports, &asked)?;
        if asked.idle.is_some() {
            idle::check(&config.nets)?;
        }
        let json = config.to_json().map_err(Error::from)?;
        asked.config = serde_json::from_str(&json).map_err(Failed::new)?;
        Ok(asked)
    }

    /// The image's, those of files, and those that are said here, of which the last of a key counts.
    fn labels(&self, image: Option<&ImageConfig>) -> Result<BTreeMap<String, String>, Failed> {
        let mut labels = image.map_or_else(BTreeMap::new, |image| image.labels.clone());
        for file in &self.label_file {
            for (number, line) in env_file::lines(file)? {
                let line = String::from_utf8_lossy(&line).into_owned();
                let place = || format!("line {number} of `{}`", file.display());
                labels.extend([label(&line).map_err(|error| Failed::in_vain(place(), error))?]);
            }
        }
        labels.extend(self.label.iter().cloned());
        Ok(labels)
    }

    fn config(
        self,
        mut config: VmConfigBuilder,
        ports: Vec<PortMapping>,
        asked: &Asked,
    ) -> Result<VmConfig, Failed> {
        // Checked by what builds it, and for the guest's init, which is asked to end in its time.
        if let Some(name) = &asked.service.hostname {
            config = config.hostname(name);
        }
        if let Some(timeout) = asked.service.stop_timeout {
            config = config.stop_timeout(timeout);
        }
        if let Some(kernel) = self.kernel {
            let found = std::path::absolute(&kernel).map_err(Failed::new)?;
            config = config.kernel(found);
        }
        if let Some(quota) = self.cpus {
            config = config
                .cpu_quota(quota)
                .vcpus(quota.milli().div_ceil(1000).into());
        }
        if let Some(count) = self.vcpus {
            config = config.vcpus(count);
        }
        if let Some(cpus) = self.cpuset_cpus {
            config = config.cpuset(cpus);
        }
        if let Some(weight) = self.cpu_shares {
            config = config.cpu_weight(weight);
        }
        if let Some(parent) = self.cgroup_parent {
            config = config.cgroup_parent(parent);
        }
        if let Some(overcommit) = self.overcommit {
            config = config.overcommit(overcommit);
        }
        if self.best_effort {
            config = config.best_effort(true);
        }
        if let Some(memory) = self.memory {
            config = config.memory(memory);
        }
        for net in self.net {
            config = config.net(net);
        }
        for mapping in self.publish.into_iter().flatten().chain(ports) {
            config = config.publish(mapping);
        }
        for server in self.dns {
            config = config.dns(server.0);
        }
        built(config)
    }
}

/// A port of the host's choice for each that an image says it listens on, and that is not published anyway.
fn exposed(image: Option<&ImageConfig>, published: &[PortMappings]) -> Vec<PortMapping> {
    if image.is_none() {
        log::warn!(
            "what is run is no image of the store, and does not say what it listens on: no port is published for it"
        );
    }
    let exposed = image.iter().flat_map(|image| &image.ports);
    let ports = exposed.flat_map(|exposed| {
        let (first, last) = (exposed.numbers.start(), exposed.numbers.end());
        let protocol = match exposed.protocol {
            image::Protocol::Tcp => Some(Protocol::Tcp),
            image::Protocol::Udp => Some(Protocol::Udp),
            image::Protocol::Sctp => {
                let ports = match first == last {
                    true => format!("port {first} is"),
                    false => format!("ports {first} to {last} are"),
                };
                log::warn!("{ports} not published: SCTP is not carried");
                None
            }
        };
        let guests = exposed.numbers.clone().filter_map(NonZeroU16::new);
        guests.filter_map(move |guest| {
            Some(PortMapping {
                address: HostAddress::All,
                host: HostPort::Any,
                guest,
                protocol: protocol?,
            })
        })
    });
    let is_published = |port: &PortMapping| {
        let mut said = published.iter().cloned().flatten();
        said.any(|said| (said.guest, said.protocol) == (port.guest, port.protocol))
    };
    ports.filter(|port| !is_published(port)).collect()
}

fn built(config: VmConfigBuilder) -> Result<VmConfig, Failed> {
    let config = with_agent(config)?.build();
    config.map_err(|error| Error::from(error).into())
}

/// Whole pages, as many as it takes.
fn memory(text: &str) -> Result<Memory, String> {
    const PAGE: u64 = 4096;
    let bytes = size(text).ok_or("a size is a number with a unit, such as 512m or 1.5g")?;
    let whole = bytes.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
    match Memory::from_bytes(whole) {
        size if (Memory::MIN..=Memory::MAX).contains(&size) => Ok(size),
        _ => {
            // As it was written.
            let size = Memory::from_bytes(bytes);
            Err(kvmlet_spec::Error::MemoryRange { size }.to_string())
        }
    }
}

/// What is noted, and under which key.
fn label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => Err("a label has a key: KEY=VALUE"),
        (key, value) => Ok((key.into(), value.into())),
    }
}

/// Shares of cgroup version 1 as a weight of version 2, as container runtimes have it (2 to 262144 become 1 to 10000).
fn weight(text: &str) -> Result<CpuWeight, String> {
    let shares: Option<u64> = text
        .parse()
        .ok()
        .filter(|shares| (2..=262_144).contains(shares));
    let shares = shares.ok_or("shares are a whole number from 2 to 262144; 1024 is usual")?;
    CpuWeight::try_from(1 + (shares - 2) * 9999 / 262_142).map_err(|error| error.to_string())
}

fn log_limits(options: &[String]) -> Result<LogLimits, Failed> {
    const SMALLEST: u64 = 64 << 10;
    let mut limits = LogLimits::default();
    for option in options {
        let wrong =
            |expected: &str| Failed::new(format!("the log option `{option}` is not {expected}"));
        match option.split_once('=') {
            Some(("max-size", value)) => {
                let size = size(value).filter(|size| *size >= SMALLEST);
                limits.file_bytes =
                    size.ok_or_else(|| wrong("a size of at least 64k, such as 10m"))?;
            }
            Some(("max-file", value)) => {
                let count = value.parse().ok().filter(|count| (1..=100).contains(count));
                limits.files = count.ok_or_else(|| wrong("a number of files from 1 to 100"))?;
            }
            _ => return Err(wrong("max-size=SIZE or max-file=N")),
        }
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("1", Some(1)),
            ("512m", Some(512 << 20)),
            ("512M", Some(512 << 20)),
            ("1.5g", Some(3 << 29)),
            ("10kb", Some(10 << 10)),
            ("2GiB", Some(2 << 30)),
            ("0.5t", Some(1 << 39)),
            ("", None),
            ("m", None),
            ("1.g", None),
            ("-1m", None),
            ("1x", None),
            ("1e3", None),
            ("99999999999999m", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
        assert_eq!(
            memory("16.0001m").unwrap(),
            Memory::from_bytes((16 << 20) + 4096)
        );
    }

    #[test]
    fn labels_have_keys_and_memory_has_limits() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(label("a=b=c"), pair("a", "b=c"));
        assert_eq!(label("a"), pair("a", ""));
        assert!(label("=x").is_err() && label("").is_err());
        let error = memory("5k").unwrap_err();
        assert!(
            error.starts_with("5 KiB of guest memory is outside the limits"),
            "{error}"
        );
        assert!(memory("16m").is_ok() && memory("5t").is_err());
    }

    #[test]
    fn shares_become_weights() {
        let weight = |text: &str| weight(text).map(CpuWeight::get);
        // As runc and crun convert them.
        assert_eq!(
            [weight("2"), weight("1024"), weight("262144")],
            [Ok(1), Ok(39), Ok(10_000)]
        );
        assert!(weight("1").is_err() && weight("x").is_err() && weight("262145").is_err());
    }

    #[test]
    fn logs_have_limits() {
        let limits = |text: &str| {
            log_limits(&[text.to_owned()])
                .map(|limits| (limits.file_bytes, limits.files))
                .ok()
        };
        assert_eq!(limits("max-size=1m"), Some((1 << 20, 3)));
        assert_eq!(limits("max-file=7"), Some((10 << 20, 7)));
        for text in [
            "max-size=1k",
            "max-size",
            "max-file=0",
            "max-file=101",
            "mode=non-blocking",
        ] {
            assert_eq!(limits(text), None, "{text}");
        }
    }
}
