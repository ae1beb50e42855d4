//! `kvmlet kill`.

use super::Outcome;
use super::instances::{book, each, look, tell};
use super::signal::signal_number;
use clap::Args;

/// Send the services of instances a signal. KILL cuts the power of their VMs, and nothing is written to disks any more.
#[derive(Args)]
pub(super) struct Kill {
    /// The signal, by its name or number.
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal_number)]
    signal: u8,
    /// Names, ids, or beginnings of ids.
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
}

impl Kill {
    pub fn run(self) -> Outcome {
        let book = book()?;
        each(&self.instances, |reference| {
            let (instance, view) = look(&book, reference)?;
            let mut control = instance.control(view.called())?;
            let is_end = i32::from(self.signal) == libc::SIGKILL;
            let told = || tell(&book, "kill", &view, [("signal", self.signal.to_string())]);
            // Before the end is told that comes of it; others may be refused.
            if is_end {
                told();
            }
            control.signal(self.signal)?;
            match is_end {
                true => drop(instance.wait()?),
                false => told(),
            }
            Ok(reference.into())
        })
    }
}
