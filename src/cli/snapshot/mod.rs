//! `kvmlet snapshot`: VMs that are saved, and what there is of them.

mod archive;
mod base;
mod elsewhere;
mod export;
mod found;
mod import;
mod inspect;
mod ls;
mod opened;
mod prune;
mod rm;
mod save;

use super::Outcome;
use super::chosen_id::id;
use clap::{Args, Subcommand};
pub(super) use found::{has_place, id_in};
use kvmlet_manager::InstanceId;
pub(super) use opened::{open, unusable};
pub(super) use rm::remove;
pub(super) use save::{As, Target, fill, fill_from, save_instance, tell_pause, unwritten};
use std::path::PathBuf;

/// Save a VM that runs to a file, from which `kvmlet restore` has it go on; or list, look at and remove what was saved.
///
/// The VM sleeps meanwhile, and runs on. The file has all of its guest's memory, keys and passwords among it; only this user
/// can read it. Its disks are not in it: copy what it can write while it is paused, or restore it alone.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Snapshot {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The id under which it is noted.
    #[arg(long, hide = true, value_parser = id)]
    id: Option<InstanceId>,
    /// Save only what has changed of its memory since this snapshot: a file, an id, or the beginning of one.
    #[arg(
        long,
        value_name = "SNAPSHOT",
        long_help = "Save only what has changed of its memory since this snapshot: a file, an id, or the beginning of one. It has to be whole, and the last that was taken of the VM as a whole, or the one from which that goes on. The new file is of use with it alone"
    )]
    base: Option<String>,
    /// A name, an id, or the beginning of one; or the path of a control socket, with a `/` in it. One that is called as what else
    /// can stand here is named by its id.
    #[arg(value_name = "INSTANCE", required = true)]
    instance: Option<String>,
    /// The file, which takes the place of an older snapshot of that name when it is whole.
    #[arg(value_name = "FILE", required = true)]
    file: Option<PathBuf>,
}

/// What is done with snapshots that there are.
#[derive(Subcommand)]
enum Verb {
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    Inspect(inspect::Inspect),
    #[command(visible_alias = "remove")]
    Rm(rm::Rm),
    Prune(prune::Prune),
    Export(export::Export),
    Import(import::Import),
}

impl Snapshot {
    pub fn run(self) -> Outcome {
        match self.verb {
            Some(Verb::Ls(verb)) => verb.run(),
            Some(Verb::Inspect(verb)) => verb.run(),
            Some(Verb::Rm(verb)) => verb.run(),
            Some(Verb::Prune(verb)) => verb.run(),
            Some(Verb::Export(verb)) => verb.run(),
            Some(Verb::Import(verb)) => verb.run(),
            None => save::save(
                &self.instance.unwrap_or_default(),
                &self.file.unwrap_or_default(),
                self.id,
                self.base.as_deref(),
            ),
        }
    }
}
