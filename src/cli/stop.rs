//! `kvmlet stop`.

use super::Outcome;
use super::instances::{book, each};
use super::signal::signal_number;
use super::stopping::stop;
use clap::Args;
use std::io::{self, IsTerminal};

/// Ask instances to end, and wait until they have. They are not started again by themselves.
///
/// A service has the time of --stop-timeout to end, which it was run with; then it is killed, and its VM's power is cut.
#[derive(Args)]
pub(super) struct Stop {
    /// How many seconds it has instead; with 0 its VM's power is cut at once.
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

impl Stop {
    pub fn run(self) -> Outcome {
        let book = book()?;
        each(&self.instances, |reference| {
            let ending = kvmlet_manager::Ending {
                cut: false,
                seconds: self.time,
                signal: self.signal,
            };
            let tells = io::stderr().is_terminal();
            stop(&book, &book.find(reference)?, ending, tells)?;
            Ok(reference.into())
        })
    }
}
