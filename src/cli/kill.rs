//! `kvmlet kill`.

use super::instances::{book, each, look, tell};
use super::signal::signal_number;
use super::{Failed, Outcome};
use clap::Args;
use kvmlet_control::agent::channel::Request;
use kvmlet_manager::{Ending, State};

/// Send the services of instances a signal. KILL cuts the power of their VMs, and nothing is written to disks any more.
#[derive(Args)]
pub(super) struct Kill {
    /// The signal, by its name or number: TERM, SIGHUP, 9, RTMIN+3.
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
            let is_end = i32::from(self.signal) == libc::SIGKILL;
            let told = || tell(&book, "kill", &view, [("signal", self.signal.to_string())]);
            if is_end && view.state == State::Suspended {
                told();
                let cut = Ending {
                    cut: true,
                    ..Ending::default()
                };
                book.end(&instance, cut, || Ok::<(), Failed>(()))?;
            } else if is_end {
                let mut control = instance.control(view.called())?;
                // Before the end is told that comes of it; others may be refused.
                told();
                control.signal(self.signal)?;
                instance.wait_for_run()?;
            } else {
                let (signal, group) = (self.signal, false);
                let request = Request::Signal { signal, group };
                instance.ask_supervisor(&view, &request)?;
                told();
            }
            Ok(reference.into())
        })
    }
}
