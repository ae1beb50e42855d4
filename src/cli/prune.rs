//! `kvmlet prune`.

use super::instances::{book, is_alive, tell};
use super::ps::filters;
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_host::walls::jail;
use kvmlet_manager::{Book, Error, State, View};

/// Remove all instances that do not run.
#[derive(Args)]
pub(super) struct Prune {
    /// Do not ask.
    #[arg(short, long)]
    force: bool,
    /// Only those that pass: KEY=VALUE, as for `ps`; can be given again.
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
}

impl Prune {
    pub fn run(self) -> Outcome {
        if let Ok(runtime) = RuntimeDirectory::of_user()
            && let Err(error) = jail::forget(&runtime)
        {
            log::debug!("the network namespace of jails stays: {error}");
        }
        let book = book()?;
        let filters = filters(&self.filter)?;
        let listing = book.list()?;
        let has_ended = |view: &View| !is_alive(view) && view.state != State::Suspended;
        let wanted = |view: &&View| has_ended(view) && filters.pass(view);
        let views: Vec<&View> = listing.instances.iter().filter(wanted).collect();
        if !self.force && !views.is_empty() && !wants(views.len())? {
            return Ok(0);
        }
        for view in views {
            match remove(&book, view) {
                Ok(false) => {}
                Ok(true) => {
                    tell(&book, "destroy", view, []);
                    kvmlet_command::print(format!("{}\n", view.id))?;
                }
                // Somebody was faster, with this or with something else.
                Err(Error::NotFound { .. } | Error::InUse { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }
}

/// Removes one; false if somebody is about to do something with it.
fn remove(book: &Book, view: &View) -> Result<bool, Error> {
    let instance = book.find(view.id.as_str())?;
    let Some(_turn) = instance.try_turn()? else {
        return Ok(false);
    };
    book.remove(instance.own()?)?;
    Ok(true)
}

fn wants(count: usize) -> Result<bool, Failed> {
    let plural = if count == 1 { "" } else { "s" };
    let sentence =
        format_args!("{count} instance{plural} that do not run are going to be removed.");
    kvmlet_command::agreed("instances", sentence)
}
