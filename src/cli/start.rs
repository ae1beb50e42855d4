//! `kvmlet start`.

use super::Outcome;
use super::instances::{book, each};
use super::keep::detach;
use clap::Args;

/// Start instances again that have ended.
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
            detach(book.find(reference)?.id())?;
            Ok(reference.into())
        })
    }
}
