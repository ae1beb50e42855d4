//! `kvmlet boot`: one VM in the foreground.

mod announcement;
mod ending;
mod flags;
mod keys;
mod quota;

use super::{Failed, Outcome};
use crate::VmConfig;
use crate::config::PortMapping;
use crate::host::net::Network;
use crate::host::standard_error;
use crate::host::whole_file::WholeFile;
use crate::run::{self, Surroundings};
use clap::Args;
use flags::Flags;
pub(crate) use keys::explained;
use std::io::{IsTerminal, stderr};
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
}

impl Boot {
    pub fn run(self, started: Instant) -> Outcome {
        let ready = self.prepare(started);
        ending::interrupted(
            ready.and_then(|(config, surroundings)| ending::code(run::run(config, surroundings))),
        )
    }

    /// What is asked for, and what it is to run in.
    fn prepare(self, started: Instant) -> Result<(VmConfig, Surroundings), Failed> {
        let mut config = self.flags.config()?;
        config.guest.console = run::terminal_size();
        let mut surroundings = Surroundings::default();
        // A VM that has run for an hour should not end with a file that cannot be written.
        let stats = config.stats.as_deref().map(WholeFile::open).transpose();
        surroundings.stats = stats.map_err(Failed::of_file)?;
        surroundings.started = started;
        surroundings.announce = announce;
        surroundings.tell = |error| Failed::from(error).print();
        surroundings.conclude =
            |outcome| kvmlet_command::conclude(ending::interrupted(ending::code(outcome)));
        Ok((config, surroundings))
    }
}

/// Tells a person what starts, and everybody what this host has chosen.
fn announce(config: &VmConfig, networks: &[Network]) {
    match stderr().is_terminal() {
        true => announcement::print(config, networks),
        false => tell_chosen_ports(config, run::published(networks)),
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
