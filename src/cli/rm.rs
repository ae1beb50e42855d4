//! `kvmlet rm`.

use super::instances::{book, each, look, stop, tell};
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::{Book, Error};
use rustix::process::Signal;

/// Remove instances, with all that is kept of them.
#[derive(Args)]
pub(super) struct Rm {
    /// Those that run, too: their power is cut.
    #[arg(short, long)]
    force: bool,
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Rm {
    pub fn run(self) -> Outcome {
        let book = book()?;
        each(&self.instances, |reference| {
            remove(&book, reference, self.force)?;
            Ok(reference.into())
        })
    }
}

/// Removes one; with `force` whatever it does.
fn remove(book: &Book, reference: &str, force: bool) -> Result<(), Failed> {
    let view = match look(book, reference) {
        Ok((_, view)) => view,
        Err(failed) if force => {
            // What cannot be read cannot be asked what it is.
            return match book.remove_damaged(reference) {
                Ok(_) => Ok(()),
                Err(_) => Err(failed),
            };
        }
        Err(failed) => return Err(failed),
    };
    let instance = match force {
        true => match stop(book, reference, Signal::QUIT, None) {
            Ok(instance) => instance,
            // It was to be removed when it has ended.
            Err(_) if is_gone(book, reference) => return Ok(()),
            Err(failed) => return Err(failed),
        },
        false => book.find(reference)?,
    };
    match book.own(&instance) {
        Ok(owned) => book.remove(owned)?,
        Err(Error::NotFound { .. }) if force => return Ok(()),
        Err(error @ Error::InUse { .. }) => {
            let failed = Failed::from(error);
            return Err(failed.help(format!(
                "stop it first (`kvmlet stop {reference}`), or --force"
            )));
        }
        Err(error) => return Err(error.into()),
    }
    tell(book, "destroy", &view, []);
    Ok(())
}

fn is_gone(book: &Book, reference: &str) -> bool {
    matches!(book.find(reference), Err(Error::NotFound { .. }))
}
