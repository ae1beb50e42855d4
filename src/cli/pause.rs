//! `kvmlet pause`.

use super::Outcome;
use super::instances::{book, each, look};
use clap::Args;

/// Have instances stand still: their vCPUs and devices do nothing until `unpause`.
#[derive(Args)]
pub(super) struct Pause {
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Pause {
    pub fn run(self) -> Outcome {
        let book = book()?;
        each(&self.instances, |reference| {
            let (instance, view) = look(&book, reference)?;
            instance.control(view.called())?.pause()?;
            Ok(reference.into())
        })
    }
}
