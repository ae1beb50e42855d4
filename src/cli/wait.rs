//! `kvmlet wait`.

use super::Outcome;
use super::instances::row::code;
use super::instances::{book, each};
use clap::Args;

/// Wait until instances have ended, and print their exit codes.
#[derive(Args)]
pub(super) struct Wait {
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Wait {
    pub fn run(self) -> Outcome {
        let book = book()?;
        each(&self.instances, |reference| {
            Ok(code(&book.find(reference)?.wait()?).to_string())
        })
    }
}
