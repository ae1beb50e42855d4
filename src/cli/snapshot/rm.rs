//! `kvmlet snapshot rm`.

use super::base::refuse_needed;
use super::found::{find, has_place};
use crate::instances::{book, each};
use crate::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::{Error, Kept, Snapshots, forget_working_set};
use std::io;

/// Remove snapshots, with their files. VMs that go on from one run on.
#[derive(Args)]
pub(super) struct Rm {
    /// One that is not there is no error, and nor is one without which others are of no use.
    #[arg(short, long)]
    force: bool,
    /// Their ids, beginnings of ids, or files.
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
}

impl Rm {
    pub fn run(self) -> Outcome {
        let snapshots = Snapshots::of(&book()?)?;
        each(&self.snapshots, |reference| {
            // By a file it is not there if the file is not.
            match find(&snapshots, reference) {
                Ok(kept) => {
                    // Somebody may be saving what needs it.
                    let _lock = snapshots.lock()?;
                    if !self.force {
                        let help = "remove that one first, or this one all the same: --force";
                        refuse_needed(&snapshots, &kept.path, help)?;
                    }
                    remove(&snapshots, &kept)?;
                    Ok(kept.id.to_string())
                }
                Err(_) if self.force && is_missing(&snapshots, reference) => Ok(reference.into()),
                Err(failed) => Err(failed),
            }
        })
    }
}

fn is_missing(snapshots: &Snapshots, reference: &str) -> bool {
    let resolved = snapshots.resolve(reference);
    matches!(resolved, Err(Error::NoSnapshot { .. })) && !std::path::Path::new(reference).exists()
}

/// Removes the file, if what is there is that one, and then the note: what is left of this when it is killed can be removed again.
pub(crate) fn remove(snapshots: &Snapshots, kept: &Kept) -> Result<(), Failed> {
    if has_place(kept) {
        match std::fs::remove_file(&kept.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let what = format!("cannot remove `{}`", kept.path.display());
                return Err(Failed::in_vain(what, error));
            }
            _ => {}
        }
        if let Some(template) = &kept.template {
            forget_working_set(template, &kept.path);
        }
    }
    Ok(snapshots.forget(&kept.id)?)
}
