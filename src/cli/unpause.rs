//! `kvmlet unpause`.

use super::Outcome;
use super::instances::{book, each, look};
use clap::Args;

/// Have instances go on that stand still.
#[derive(Args)]
pub(super) struct Unpause {
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Unpause {
    pub fn run(self) -> Outcome {
        let book = book()?;
        each(&self.instances, |reference| {
            let (instance, view) = look(&book, reference)?;
            instance.control(view.called())?.unpause()?;
            Ok(reference.into())
        })
    }
}
