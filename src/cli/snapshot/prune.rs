//! `kvmlet snapshot prune`.

use super::found::has_place;
use super::rm::remove;
use crate::instances::book;
use crate::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::{Kept, Snapshots};

/// Forget the snapshots whose files are not there any more, or have another's place.
///
/// One whose file was only moved cannot be restored as an instance then.
#[derive(Args)]
pub(super) struct Prune {
    /// Remove all templates of `kvmlet run --warm`, too, which are made again when they are wanted.
    #[arg(short, long)]
    all: bool,
    /// Do not ask.
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    pub fn run(self) -> Outcome {
        let snapshots = Snapshots::of(&book()?)?;
        let wanted = |kept: &Kept| (self.all && kept.template.is_some()) || !has_place(kept);
        let mut gone = snapshots.list()?;
        gone.retain(wanted);
        if !self.force && !gone.is_empty() && !agreed(&gone)? {
            return Ok(0);
        }
        let _lock = snapshots.lock()?;
        // One that was about to have its file has it by now.
        gone.retain(wanted);
        for kept in gone {
            remove(&snapshots, &kept)?;
            kvmlet_command::print(format!("{}\n", kept.id))?;
        }
        Ok(0)
    }
}

fn agreed(gone: &[Kept]) -> Result<bool, Failed> {
    let (count, plural) = (gone.len(), if gone.len() == 1 { "" } else { "s" });
    let templates = gone.iter().filter(|kept| has_place(kept)).count();
    let sentence = format_args!(
        "{count} snapshot{plural} are going to be forgotten, {templates} of them templates with their files."
    );
    kvmlet_command::agreed("snapshots", sentence)
}
