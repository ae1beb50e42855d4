//! `kvmlet rm`.

use super::instances::{book, each, is_alive, look, tell};
use super::stopping::{Ending, stop};
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_command::LongVerbosity;
use kvmlet_manager::volumes::forget;
use kvmlet_manager::{Book, Error, Instance, View};

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
        true => end_and_remove(book, &instance),
        false => remove_ended(book, &instance, &view).map_err(|error| match error {
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

fn remove_ended(book: &Book, instance: &Instance, view: &View) -> Result<(), Error> {
    // Nobody waits for a turn to be told that it runs.
    let _turn = (!is_alive(view)).then(|| instance.turn()).transpose()?;
    book.remove(book.own(instance)?)
}

fn end_and_remove(book: &Book, instance: &Instance) -> Result<(), Failed> {
    // Whoever is starting it has the turn until it runs, or has ended.
    let ending = Ending {
        cut: true,
        ..Ending::default()
    };
    stop(book, instance, ending, false)?;
    let _turn = instance.turn()?;
    stop(book, instance, ending, false)?;
    Ok(book.remove(book.own(instance)?)?)
}

fn is_gone(book: &Book, instance: &Instance) -> bool {
    matches!(
        book.find(instance.id().as_str()).map(drop),
        Err(Error::NotFound { .. })
    )
}
