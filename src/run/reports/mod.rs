//! What a VM's process has to say: its outputs and its statistics, on their way to where they go.

mod output;
mod stats;

pub(crate) use output::{Outputs, TheirOutputs};
pub(crate) use stats::{StatsSink, StatsSource};

use stats::Received;
use std::os::fd::{AsFd, BorrowedFd};

/// What of it comes by way of the supervisor.
pub(crate) struct Reports {
    outputs: Option<Outputs>,
    stats: Option<StatsSource>,
    /// Nobody sends statistics any more.
    silent: bool,
}

impl Reports {
    pub fn new(outputs: Option<Outputs>, stats: Option<StatsSource>) -> Self {
        Self {
            outputs,
            stats,
            silent: false,
        }
    }

    /// What is to be read: outputs and statistics.
    pub fn fds(&self) -> [Option<BorrowedFd<'_>>; 3] {
        let [out, err] = self.outputs.as_ref().map_or([None, None], Outputs::fds);
        let stats = self.stats.as_ref().filter(|_| !self.silent);
        [out, err, stats.map(AsFd::as_fd)]
    }

    /// Passes on what has come. Statistics may go to standard output, and come behind what the guest had written when
    /// they were sent.
    pub fn pass_on(&mut self) {
        let stats = self.stats.as_mut().filter(|_| !self.silent);
        let received = stats.map_or(Received::None, StatsSource::receive);
        if let Some(outputs) = &mut self.outputs {
            outputs.pass_on();
        }
        match (received, &mut self.stats) {
            (Received::One(text), Some(stats)) => stats.write(&text),
            (Received::Last, _) => self.silent = true,
            _ => {}
        }
    }

    /// Passes on all that is left when the VM's process has ended: what was sent before is there now, and no more comes.
    pub fn finish(&mut self) {
        if let Some(outputs) = &mut self.outputs {
            outputs.finish();
        }
        if let Some(stats) = self.stats.as_mut().filter(|_| !self.silent) {
            stats.finish();
        }
    }

    /// Could the last statistics not be written?
    pub fn has_failed(&self) -> bool {
        self.stats.as_ref().is_some_and(StatsSource::has_failed)
    }
}
