//! `kvmlet restart`.

use super::boot::StartedBy;
use super::instances::{book, each, look_again, tell};
use super::keep::detach;
use super::signal::signal_number;
use super::stopping::stop;
use super::{Failed, Outcome};
use clap::Args;

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
    /// The signal that asks a service to end, instead of what it was run with.
    #[arg(short, long, value_name = "SIGNAL", value_parser = signal_number)]
    signal: Option<u8>,
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Restart {
    pub fn run(self) -> Outcome {
        StartedBy::Again.speak();
        let book = book()?;
        each(&self.instances, |reference| {
            let instance = book.find(reference)?;
            let turn = instance.turn()?;
            let view = look_again(&book, &instance)?;
            if view.asked.remove {
                let called = view.called();
                let failed =
                    Failed::new(format!("instance `{called}` is removed when it has ended"));
                return Err(failed.help("run it anew, without --rm"));
            }
            let ending = kvmlet_manager::Ending {
                cut: false,
                seconds: self.time,
                signal: self.signal,
            };
            stop(&book, &instance, ending, false)?;
            // Its supervisor may have more to write.
            drop(book.own(&instance)?);
            detach(instance.id(), turn)?;
            tell(&book, "restart", &view, []);
            Ok(reference.into())
        })
    }
}
