//! `kvmlet prune`.

use super::instances::{book, is_alive, tell};
use super::ps::filters;
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_manager::{Error, View};
use kvmlet_sys::standard_error;
use std::io::{self, BufRead, IsTerminal};

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
        let book = book()?;
        let filters = filters(&self.filter)?;
        let listing = book.list()?;
        let wanted = |view: &&View| !is_alive(view) && filters.pass(view);
        let views: Vec<&View> = listing.instances.iter().filter(wanted).collect();
        if !self.force && !views.is_empty() && !agreed(views.len())? {
            return Ok(0);
        }
        for view in views {
            let removed = book
                .find(view.id.as_str())
                .and_then(|instance| instance.own());
            match removed.and_then(|owned| book.remove(owned)) {
                Ok(()) => {
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

/// Does whoever sits at the terminal want it?
fn agreed(count: usize) -> Result<bool, Failed> {
    if !io::stdin().is_terminal() {
        return Err(
            Failed::new("nobody is there to be asked whether instances are to be removed")
                .help("say --force"),
        );
    }
    let plural = if count == 1 { "" } else { "s" };
    standard_error::say(format_args!(
        "kvmlet: {count} instance{plural} that do not run are going to be removed. Go on? [y/N]"
    ));
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(Failed::new)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
