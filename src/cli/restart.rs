//! `kvmlet restart`.

use super::instances::{book, each, look, stop, tell};
use super::keep::detach;
use super::{Failed, Outcome};
use clap::Args;
use rustix::process::Signal;

/// Stop instances that run, and start them again.
#[derive(Args)]
pub(super) struct Restart {
    /// How many seconds a service has to end, instead of what it was run with.
    #[arg(
        short = 't',
        long = "time",
        value_name = "SECONDS",
        visible_alias = "timeout"
    )]
    time: Option<u32>,
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Restart {
    pub fn run(self) -> Outcome {
        let book = book()?;
        each(&self.instances, |reference| {
            let (_, view) = look(&book, reference)?;
            if view.asked.remove {
                let called = view.called();
                let failed =
                    Failed::new(format!("instance `{called}` is removed when it has ended"));
                return Err(failed.help("run it anew, without --rm"));
            }
            let instance = stop(&book, reference, Signal::TERM, self.time)?;
            // Its supervisor may have more to write.
            drop(book.own(&instance)?);
            detach(instance.id())?;
            tell(&book, "restart", &view, []);
            Ok(reference.into())
        })
    }
}
