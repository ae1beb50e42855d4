//! `kvmlet boot`: one VM in the foreground.

mod announcement;
mod ending;
mod flags;
mod keys;
mod quota;

use super::{Failed, Outcome};
use clap::Args;
use flags::Flags;
pub(crate) use flags::with_default_guest;
pub(crate) use keys::explained;
use kvmlet_host::net::Network;
use kvmlet_run::{Attendant, ControlListener, StatsFile};
use kvmlet_spec::{Dialect, PortMapping, VmConfig};
use kvmlet_sys::{process, standard_error};
use std::io::{self, IsTerminal, stderr};
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
    /// Write a line to this descriptor, which the caller has opened, when the VM runs.
    #[arg(long, value_name = "FD", value_parser = inheritable)]
    ready_fd: Option<i32>,
    /// Take requests and tell statistics on this descriptor, which the caller has opened: a Unix stream socket that listens.
    #[arg(long, value_name = "FD", value_parser = inheritable)]
    control_fd: Option<i32>,
}

/// A number that a descriptor may have beside the standard streams.
fn inheritable(text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| *number > 2);
    number.ok_or_else(|| "a descriptor is a whole number from 3".into())
}

fn unusable(number: i32, error: io::Error) -> Failed {
    Failed::in_vain(format!("descriptor {number} cannot be used"), error)
}

impl Boot {
    pub fn run(self, started: Instant) -> Outcome {
        // Before anything is opened that could have its number.
        let ready = self.ready_fd.map(|number| {
            process::inherited(number).map_err(|error| {
                unusable(number, error).help("open it first: `kvmlet boot --ready-fd 3 3>FILE`")
            })
        });
        let control = self.control_fd.map(|number| {
            let listener = process::inherited(number).and_then(ControlListener::new);
            listener.map_err(|error| {
                unusable(number, error)
                    .help("who starts kvmlet makes the socket, and listens on it")
            })
        });
        let mut config = self.flags.config()?;
        config.guest.console = kvmlet_run::terminal_size();
        let stats = config.stats.as_deref().map(StatsFile::open).transpose();
        let stats = stats.map_err(Failed::of_file)?;
        let mut attendant = Attendant::default();
        let stats = stats.map(|file| file.sink(|error| Failed::of_file(error).print()));
        let (sink, written) = stats.unzip();
        attendant.stats = sink;
        attendant.ready = ready.transpose()?;
        attendant.control = control.transpose()?;
        attendant.started = started;
        attendant.announce = announce;
        attendant.dialect = Dialect::Flags;
        let outcome = kvmlet_run::run(config, attendant)?;
        let unwritten = written.is_some_and(|written| written.has_failed());
        Ok(ending::code(&outcome, unwritten).number())
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
