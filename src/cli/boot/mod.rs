//! `kvmlet boot`: one VM in the foreground.

mod announcement;
mod ending;
mod flags;
mod keys;
mod quota;
mod restore;
mod walls;

use super::{Failed, Outcome};
use crate::ports::called_at;
use clap::Args;
use flags::{Flags, builder, with_default_guest};
pub(crate) use flags::{help_without_init, with_agent};
pub(crate) use keys::explained;
use kvmlet_control::{Channel, Report};
use kvmlet_host::net::{self, Network};
use kvmlet_run::{Attendant, ControlListener, StatsFile};
use kvmlet_spec::{Dialect, Metadata, PortMapping, Reason, Setting, VmConfig, advice};
use kvmlet_sys::{process, standard_error};
use kvmlet_vmm::snapshot::Saved;
pub(crate) use restore::{Resume, as_the_machine_was};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use std::io::{self, IsTerminal, stderr};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// Boot a guest in a microVM, connect it to this terminal, and end with its exit code.
///
/// Without --kernel and --initrd, boots the kernel that `kernels/build` and the root that `images/build
/// minimal` have left in the cache. Ctrl-] ends the VM from the keyboard.
#[derive(Args)]
#[command(after_help = "\
Exit codes: the service's own code; 125 if kvmlet fails or is used wrongly, 129 if the guest asked for a reset, 134 if its \
kernel panicked, 139 if it crashed with a triple fault, 128+N if kvmlet was ended by signal N, 159 if one of its threads made a system call that it is not allowed to.")]
pub(crate) struct Boot {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    surroundings: Surroundings,
}

/// Who else wants to know of the VM.
#[derive(Args)]
struct Surroundings {
    /// Write a line to this descriptor, which the caller has opened, when the VM runs.
    #[arg(long, value_name = "FD", value_parser = inheritable)]
    ready_fd: Option<i32>,
    /// Take requests and tell statistics on this descriptor, which the caller has opened: a Unix stream socket that listens.
    #[arg(long, value_name = "FD", value_parser = inheritable)]
    control_fd: Option<i32>,
    /// Take requests and tell all that becomes of the VM on this descriptor, one end of a `kvmlet_control::Channel`. The VM
    /// ends when the other end is closed.
    #[arg(long, value_name = "FD", value_parser = inheritable, hide = true)]
    channel_fd: Option<i32>,
    /// Build the VM, and let its guest run when that is asked for.
    #[arg(long, hide = true)]
    paused: bool,
    /// Have a program answer the guest at an address, on the interface of this number, by a socket that the caller has
    /// opened: `0,5,169.254.169.254`.
    #[arg(long, value_name = "NUMBER,FD,ADDRESS", hide = true)]
    metadata: Vec<String>,
    /// Whose flags messages name: those of whoever has started this for an instance.
    #[arg(long, value_name = "VERB", hide = true)]
    started_by: Option<String>,
}

/// The verb by which somebody has started an instance, by whose flags they know its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartedBy {
    Run,
    Copy,
    Again,
    /// A client of kvmlet's API, who has keys instead.
    Api,
    /// The same, of which this one is made.
    ApiMade,
}

impl StartedBy {
    /// As a process is told of it that does the verb's work.
    pub const FLAG: &str = "--started-by";

    /// What follows that.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Copy => "copy",
            Self::Again => "again",
            Self::Api => "api",
            Self::ApiMade => "api-made",
        }
    }

    /// What its name says; whatever is not known is a verb of a later kvmlet.
    pub fn of(name: &str) -> Self {
        match name {
            "run" => Self::Run,
            "copy" => Self::Copy,
            "api" => Self::Api,
            "api-made" => Self::ApiMade,
            _ => Self::Again,
        }
    }

    /// Is the instance made for this start alone, and gone if nothing comes of it?
    pub const fn makes(self) -> bool {
        matches!(self, Self::Run | Self::Copy | Self::ApiMade)
    }

    /// Has this process tell of settings so.
    pub fn speak(self) {
        kvmlet_command::speak(match self {
            Self::Run => Dialect::Service,
            Self::Copy => Dialect::Copy,
            Self::Again => Dialect::Again,
            Self::Api | Self::ApiMade => Dialect::File,
        });
    }
}

/// The descriptor by which somebody wants to be told that a verb has come to the point.
pub(crate) fn inherited(number: i32, verb: &str) -> Result<OwnedFd, Failed> {
    process::inherited(number).map_err(|error| {
        let help = format!("open it first: `kvmlet {verb} --ready-fd 3 3>FILE`");
        unusable(number, error).help(help)
    })
}

/// A number that a descriptor may have beside the standard streams.
pub(crate) fn inheritable(text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| *number > 2);
    number.ok_or_else(|| "a descriptor is a whole number from 3".into())
}

/// An interface, and who answers the guest there: its number, a descriptor, and an address.
fn answered(text: &str) -> Result<(i32, Metadata), Failed> {
    let mut parts = text.splitn(3, ',');
    let mut part = || parts.next().unwrap_or_default();
    let (interface, number, address) = (part().parse(), inheritable(part()), part().parse());
    let (Ok(interface), Ok(number), Ok(address)) = (interface, number, address) else {
        return Err(Failed::new(format!("`{text}` is not NUMBER,FD,ADDRESS")));
    };
    let socket = process::inherited(number).and_then(packets);
    let socket = socket.map_err(|error| unusable(number, error))?;
    Ok((interface, Metadata::new(address, socket.into())))
}

/// A socket that keeps the bounds of messages.
fn packets(socket: OwnedFd) -> io::Result<Channel> {
    match socket_type(&socket)? {
        SocketType::SEQPACKET => Ok(socket.into()),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn unusable(number: i32, error: io::Error) -> Failed {
    Failed::in_vain(format!("descriptor {number} cannot be used"), error)
}

impl Boot {
    #[inline(never)] // see `kvmlet_cli::run`
    pub fn run(self, started: Instant) -> Outcome {
        // Before anything is opened that could have their numbers.
        let taken = self.surroundings.take("boot")?;
        let config = taken.or_tell(self.flags.config())?;
        taken.run(config, None, started, announce)
    }
}

/// What a configuration describes.
pub(crate) fn described(json: &str) -> Result<VmConfig, Failed> {
    let config = with_default_guest(builder(json, "of the instance")?)?.build();
    config.map_err(|error| kvmlet_vmm::Error::from(error).into())
}

/// Runs a VM in this process, as `kvmlet boot --config` does, for an instance.
pub(crate) fn run_here(config: VmConfig, ready: OwnedFd, control: Option<OwnedFd>) -> Outcome {
    Taken::of(ready, control)?.run(config, None, Instant::now(), announce)
}

/// The same, on networks that another process holds; as a VM that was saved, if it is one, which stands still until it is
/// wanted if it is `paused`.
pub(crate) fn run_held(
    config: VmConfig,
    (ready, control): (OwnedFd, Option<OwnedFd>),
    networks: Vec<Network>,
    saved: Option<Saved>,
    paused: bool,
) -> Outcome {
    let taken = Taken {
        networks: Some(networks),
        paused,
        ..Taken::of(ready, control)?
    };
    taken.run(config, saved, Instant::now(), announce)
}

/// What was opened for this process.
pub(crate) struct Taken {
    pub ready: Option<OwnedFd>,
    control: Option<ControlListener>,
    channel: Option<Channel>,
    metadata: Vec<(i32, Metadata)>,
    paused: bool,
    networks: Option<Vec<Network>>,
}

impl Surroundings {
    fn take(&self, verb: &str) -> Result<Taken, Failed> {
        if let Some(by) = &self.started_by {
            StartedBy::of(by).speak();
        }
        let ready = self.ready_fd.map(|number| inherited(number, verb));
        let control = self.control_fd.map(|number| {
            let listener = process::inherited(number).and_then(ControlListener::new);
            listener.map_err(|error| {
                unusable(number, error)
                    .help("who starts kvmlet makes the socket, and listens on it")
            })
        });
        let channel = self.channel_fd.map(|number| {
            let channel = process::inherited(number).and_then(packets);
            channel.map_err(|error| unusable(number, error))
        });
        let mut metadata = Vec::new();
        for text in &self.metadata {
            metadata.push(answered(text)?);
        }
        Ok(Taken {
            ready: ready.transpose()?,
            control: control.transpose()?,
            channel: channel.transpose()?,
            metadata,
            paused: self.paused,
            networks: None,
        })
    }
}

impl Taken {
    /// What an instance's supervisor has opened.
    fn of(ready: OwnedFd, control: Option<OwnedFd>) -> Result<Self, Failed> {
        let control = control.map(ControlListener::new).transpose();
        Ok(Self {
            ready: Some(ready),
            control: control.map_err(Failed::new)?,
            channel: None,
            metadata: Vec::new(),
            paused: false,
            networks: None,
        })
    }

    /// Tells whoever has started this process what is wrong, if that is known before there is anything to run.
    pub fn or_tell<T>(&self, made: Result<T, Failed>) -> Result<T, Failed> {
        if let (Err(failed), Some(channel)) = (&made, &self.channel) {
            let failure = failed.failure();
            let outcome = kvmlet_spec::Outcome::new(Reason::Failed).failure(failure);
            let _ = channel.try_send(&Report::Ended(Box::new(outcome)).encode());
        }
        made
    }

    /// Runs a VM, from what was saved if that is given.
    fn run(
        self,
        mut config: VmConfig,
        saved: Option<Saved>,
        started: Instant,
        announce: fn(&VmConfig, &[Network]),
    ) -> Outcome {
        config.guest.console = kvmlet_run::terminal_size();
        for (number, metadata) in self.metadata {
            if let Some(net) = config.nets.get_mut(number as usize) {
                net.metadata = Some(metadata);
            }
        }
        let stats = config.stats.as_deref().map(StatsFile::open).transpose();
        let stats = stats.map_err(Failed::of_file)?;
        let mut attendant = Attendant::default();
        let stats = stats.map(|file| file.sink(|error| Failed::of_file(error).print()));
        let (sink, written) = stats.unzip();
        attendant.stats = sink;
        attendant.ready = self.ready;
        attendant.control = self.control;
        attendant.dialect = match self.channel {
            Some(_) => Dialect::File,
            None => kvmlet_command::dialect(),
        };
        attendant.upstream = self.channel;
        attendant.paused = self.paused;
        attendant.networks = self.networks;
        attendant.saved = saved;
        attendant.started = started;
        attendant.announce = announce;
        let outcome = kvmlet_run::run(config, attendant).map_err(with_holder)?;
        let unwritten = written.is_some_and(|written| written.has_failed());
        Ok(ending::code(&outcome, unwritten).number())
    }
}

/// The exit code of a VM whose end another process tells, once what went wrong is told.
pub(crate) fn end_code(outcome: &kvmlet_spec::Outcome) -> u8 {
    ending::code(outcome, false).number()
}

/// An error, with the instance that has what this VM wants, if it is one of this user's.
pub(crate) fn with_holder(error: kvmlet_run::Error) -> Failed {
    let instance = match &error {
        kvmlet_run::Error::Net(net::Error::PortTaken {
            holder: None | Some(net::Holder::Vm(_)),
            mapping,
            ..
        }) => called_at(mapping).map(|called| (called, mapping.guest)),
        _ => None,
    };
    let failed = Failed::from(error);
    match instance {
        Some((called, guest)) => failed.help(advice!(
            "it is instance `{}`: `kvmlet stop {}` gives the port back; or choose another port, or leave that to the host: {}",
            called.clone(),
            called,
            (Setting::Publish, guest.to_string())
        )),
        None => failed,
    }
}

/// Tells a person what starts, and everybody what this host has chosen.
fn announce(config: &VmConfig, networks: &[Network]) {
    match stderr().is_terminal() {
        true => announcement::print(config, networks),
        false => tell_chosen_ports(config, kvmlet_run::published(networks)),
    }
}

/// Tells which ports of the host were chosen, where what was asked for left that open.
fn tell_chosen_ports<'a>(config: &VmConfig, published: impl Iterator<Item = &'a PortMapping>) {
    let is_asked = |mapping: &PortMapping| {
        let mut nets = config.nets.iter();
        nets.any(|net| net.publish.contains(mapping))
    };
    for mapping in published.filter(|mapping| !is_asked(mapping)) {
        standard_error::say(format_args!("kvmlet: published {mapping}"));
    }
}
