//! `kvmlet completions` and `kvmlet man`: made from the command line's own definition.

use super::boot;
use super::serve::LINES;
use super::{Cli, Failed, Outcome, Verb};
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use kvmlet_command::firecracker::Line;
use kvmlet_command::{bench, oci, print};

/// The whole: with what is left to other programs.
fn definition() -> Command {
    let command = Cli::<Verb>::command()
        .mut_subcommand("bench", |_| bench::Bench::command().name("bench"))
        .mut_subcommand("boot", boot::explained);
    let lines = LINES.iter().map(Line::command);
    oci::verbs().chain(lines).fold(command, |command, verb| {
        let name = verb.get_name().to_owned();
        command.mut_subcommand(&name, |_| verb)
    })
}

/// Print a completion script for a shell.
///
/// For bash: kvmlet completions bash > ~/.local/share/bash-completion/completions/kvmlet
#[derive(Args)]
pub(super) struct Completions {
    /// The shell to complete in.
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut definition(), "kvmlet", &mut script);
        print(script)?;
        Ok(0)
    }
}

/// Print the manual page, in roff: kvmlet man | man -l -
#[derive(Args)]
pub(super) struct Man {
    /// The verb whose page to print, instead of the overview.
    verb: Option<String>,
}

impl Man {
    pub fn run(self) -> Outcome {
        let mut command = definition();
        command.build();
        if let Some(verb) = &self.verb {
            let found = command
                .get_subcommands()
                .find(|sub| sub.get_name() == verb)
                .cloned();
            command = found.ok_or_else(|| {
                Failed::new(format!("there is no verb `{verb}`")).help("see `kvmlet help`")
            })?;
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(Failed::new)?;
        print(page)?;
        Ok(0)
    }
}
