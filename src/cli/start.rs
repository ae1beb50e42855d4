//! `kvmlet start`.

use super::Outcome;
use super::instances::{book, each, look};
use super::keep::detach;
use clap::Args;
use kvmlet_manager::State;

/// Start instances again that have ended. One that runs is left as it is.
#[derive(Args)]
pub(super) struct Start {
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Start {
    pub fn run(self) -> Outcome {
        let book = book()?;
        each(&self.instances, |reference| {
            let (instance, view) = look(&book, reference)?;
            if view.state != State::Running {
                detach(instance.id())?;
            }
            Ok(reference.into())
        })
    }
}
