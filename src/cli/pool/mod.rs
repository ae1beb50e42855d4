//! `kvmlet pool`: VMs that are restored and stand still, until somebody takes one.

mod create;
mod fill;
mod hold;
mod ls;
mod rm;
mod take;
mod warm;

use super::Outcome;
use clap::{Args, Subcommand};
use kvmlet_manager::Name;

/// Pools: VMs that were restored from a snapshot and stand still, each of which somebody takes and has go on in a moment.
#[derive(Args)]
pub(super) struct PoolVerbs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Create(create::Create),
    Take(take::Take),
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
    #[command(hide = true)]
    Hold(hold::Hold),
    #[command(hide = true)]
    Fill(fill::Fill),
}

impl PoolVerbs {
    pub fn run(self) -> Outcome {
        match self.verb {
            Verb::Create(verb) => verb.run(),
            Verb::Take(verb) => verb.run(),
            Verb::Ls(verb) => verb.run(),
            Verb::Rm(verb) => verb.run(),
            Verb::Hold(verb) => verb.run(),
            Verb::Fill(verb) => verb.run(),
        }
    }
}

/// A name: as those of instances.
fn name(text: &str) -> Result<Name, &'static str> {
    text.parse()
        .map_err(|error: kvmlet_manager::NotAName| error.why)
}
