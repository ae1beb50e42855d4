//! Whom a VM tells what, and who may ask it.

use crate::reports::StatsSink;
use kvmlet_control::{Channel, Report};
use kvmlet_spec::{Failure, Outcome, Stats};
use kvmlet_vmm::vm::VmHandle;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// How long the guest has to tell how much memory it uses, before statistics are told without.
const PATIENCE: Duration = Duration::from_millis(500);

/// From a VM to whoever attends it.
pub(crate) struct Contact {
    way: Way,
    /// When the process was, which times of the start are counted from.
    pub started: Instant,
}

enum Way {
    /// To another process: one in a jail has no files.
    Supervisor { channel: Channel, wants_stats: bool },
    /// In this process.
    Here(Option<RefCell<StatsSink>>),
}

impl Contact {
    /// With a supervisor.
    pub fn with_supervisor(channel: Channel, wants_stats: bool, started: Instant) -> Self {
        let way = Way::Supervisor {
            channel,
            wants_stats,
        };
        Self { way, started }
    }

    /// With this process.
    pub fn here(stats: Option<StatsSink>, started: Instant) -> Self {
        let way = Way::Here(stats.map(RefCell::new));
        Self { way, started }
    }

    /// By which the supervisor asks, if there is one. It is closed when that has ended.
    pub fn channel(&self) -> Option<&Channel> {
        match &self.way {
            Way::Supervisor { channel, .. } => Some(channel),
            Way::Here(_) => None,
        }
    }

    /// Tells that the guest runs.
    pub fn tell_ready(&self) {
        self.tell(&Report::Ready);
    }

    /// Tells what has come of a request.
    pub fn answer(&self, to: u32, refused: Option<Failure>) {
        self.tell(&Report::Answer { to, refused });
    }

    /// Tells how long the VM stood still while it was saved, before that is answered.
    pub fn tell_pause(&self, pause: Duration) {
        let microseconds = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.tell(&Report::StoodStill { microseconds });
    }

    /// Tells how it has ended.
    pub fn tell_end(&self, outcome: Outcome) {
        self.tell(&Report::Ended(Box::new(outcome)));
    }

    /// Tells what the VM has done so far, with what the guest says of itself now, if it answers.
    pub fn tell_stats_now(&self, vm: &VmHandle) {
        if !self.wants_stats() {
            return;
        }
        let answer = vm.balloon().map(|balloon| balloon.ask_guest(PATIENCE));
        if let Some(Err(error)) = answer {
            log::info!("{error}");
        }
        self.tell_stats(vm);
    }

    /// Tells what the VM has done so far, if anybody wants to know.
    pub fn tell_stats(&self, vm: &VmHandle) {
        if !self.wants_stats() {
            return;
        }
        let mut stats = Stats::default();
        stats.start = vm.boot_trace().record(self.started);
        stats.vm = vm.stats();
        let text = serde_json::to_string_pretty(&stats).unwrap_or_default() + "\n";
        match &self.way {
            Way::Supervisor { .. } => self.tell(&Report::Stats(text.into_bytes())),
            Way::Here(Some(sink)) => sink.borrow_mut()(text.as_bytes()),
            Way::Here(None) => {}
        }
    }

    fn wants_stats(&self) -> bool {
        match &self.way {
            Way::Supervisor { wants_stats, .. } => *wants_stats,
            Way::Here(sink) => sink.is_some(),
        }
    }

    /// A supervisor that has gone away is noticed elsewhere.
    fn tell(&self, report: &Report) {
        if let Some(channel) = self.channel()
            && let Err(error) = channel.send(&report.encode())
        {
            log::debug!("the supervisor cannot be told: {error}");
        }
    }
}
