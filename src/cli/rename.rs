//! `kvmlet rename`.

use super::Outcome;
use super::instances::{book, look, tell};
use clap::Args;
use kvmlet_manager::Name;

/// Call an instance by another name.
#[derive(Args)]
pub(super) struct Rename {
    /// Its name, its id, or a beginning of that.
    #[arg(value_name = "INSTANCE")]
    instance: String,
    /// What it is called from now on.
    #[arg(value_name = "NAME")]
    name: Name,
}

impl Rename {
    pub fn run(self) -> Outcome {
        let book = book()?;
        let (_, view) = look(&book, &self.instance)?;
        let old = view.called().to_owned();
        let id = book.rename(view.id.as_str(), &self.name)?;
        let (_, view) = look(&book, id.as_str())?;
        tell(&book, "rename", &view, [("oldName", old)]);
        Ok(0)
    }
}
