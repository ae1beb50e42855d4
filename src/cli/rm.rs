//! `kvmlet rm`.

use super::instances::{book, each, look, tell};
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_command::LongVerbosity;
use kvmlet_manager::volumes::forget;
use kvmlet_manager::{Book, Error, Instance};

/// Remove instances, with all that is kept of them.
#[derive(Args)]
pub(super) struct Rm {
    /// Those that run, too: their power is cut.
    #[arg(short, long)]
    force: bool,
    /// With the volumes of theirs that nobody has named.
    #[arg(short, long)]
    volumes: bool,
    #[command(flatten)]
    verbosity: LongVerbosity,
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Rm {
    pub fn run(self) -> Outcome {
        let book = book()?;
        // As docker does: what is not there is told of, and is as good as removed if it is to go whatever it does.
        let (there, missing): (Vec<_>, Vec<_>) =
            self.instances.into_iter().partition(|reference| {
                !self.force || !matches!(book.find(reference), Err(Error::NotFound { .. }))
            });
        for reference in missing {
            Failed::from(Error::NotFound { reference }).print();
        }
        each(&there, |reference| {
            remove(&book, reference, self.force, self.volumes)?;
            Ok(reference.into())
        })
    }
}

/// Removes one; with `force` whatever it does.
fn remove(book: &Book, reference: &str, force: bool, volumes: bool) -> Result<(), Failed> {
    let (instance, view) = match look(book, reference) {
        Ok(found) => found,
        Err(failed) if force => {
            // What cannot be read cannot be asked what it is.
            return match book.remove_damaged(reference) {
                Ok(_) => Ok(()),
                Err(_) => Err(failed),
            };
        }
        Err(failed) => return Err(failed),
    };
    let removed = match force {
        true => book.end_and_remove(&instance).map_err(Failed::from),
        false => book
            .remove_ended(&instance, &view)
            .map_err(|error| match error {
                Error::InUse { .. } => Failed::from(error).help(format!(
                    "stop it first (`kvmlet stop {reference}`), or --force"
                )),
                error => error.into(),
            }),
    };
    match removed {
        Ok(()) => tell(book, "destroy", &view, []),
        // It was to be removed when it has ended, or somebody was faster.
        Err(_) if force && is_gone(book, &instance) => {}
        Err(failed) => return Err(failed),
    }
    if volumes {
        forget(book, &view.asked)?;
    }
    Ok(())
}

fn is_gone(book: &Book, instance: &Instance) -> bool {
    matches!(
        book.find(instance.id().as_str()).map(drop),
        Err(Error::NotFound { .. })
    )
}
