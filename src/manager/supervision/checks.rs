//! The health checks of a service that runs: when each begins, and what it says.

use super::probe::{End, Probe};
use crate::health::{CheckResult, Checked, Health, Next, Watched};
use crate::{Moment, Service};
use kvmlet_control::agent::channel::ProcessSpec;
use kvmlet_spec::supervision::HealthCheck;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::wait::Slot;
use std::time::{Duration, Instant};

/// How long a guest may take to kill a check that took too long.
const KILLING: Duration = Duration::from_secs(5);

/// How the health of a service is asked for.
pub(super) struct CheckSpec {
    pub check: HealthCheck,
    /// What runs in the guest.
    pub process: ProcessSpec,
}

impl CheckSpec {
    /// A check as docker's are run, beside a service.
    pub fn new(check: HealthCheck, service: &Service) -> Self {
        let words = match &check.arguments[..] {
            [] => ["/bin/sh", "-c", &check.command].map(Into::into).into(),
            words => words.iter().map(|word| word.clone().into()).collect(),
        };
        let process = service.beside(words);
        Self { check, process }
    }
}

/// The checks of one run.
pub(super) struct Checks {
    watched: Watched,
    timeout: Duration,
    /// From when the times of `watched` are counted.
    origin: Instant,
    /// The one that runs, and since when.
    probe: Option<(Probe, Moment)>,
    /// One that took too long, and is being killed until then.
    killed: Option<(Probe, Instant)>,
    /// The VM stands still, so that nothing is checked.
    still: bool,
    checked: Checked,
}

impl Checks {
    /// Those of a service that has just started.
    pub fn new(spec: &CheckSpec) -> Self {
        Self {
            watched: Watched::new(spec.check.clone(), Duration::ZERO),
            timeout: spec.check.timeout.duration(),
            origin: Instant::now(),
            probe: None,
            killed: None,
            still: false,
            checked: Checked::default(),
        }
    }

    /// Is something executed in the guest for them?
    pub fn is_busy(&self) -> bool {
        self.probe.is_some() || self.killed.is_some()
    }

    /// What is to be waited for.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let killed = self.killed.as_ref().map(|(probe, _)| probe.slot());
        let probe = self.probe.as_ref().map(|(probe, _)| probe.slot());
        killed.into_iter().chain(probe)
    }

    /// When something is due by itself.
    pub fn due(&self) -> Option<Instant> {
        let killed = self.killed.as_ref().map(|(_, until)| *until);
        let (Next::CheckAt(next) | Next::FailedAt(next)) = self.watched.next();
        let next = self.origin.checked_add(next).filter(|_| !self.still);
        killed.into_iter().chain(next).min()
    }

    /// The VM stands still, or goes on. What ran meanwhile says nothing.
    pub fn stand_still(&mut self, still: bool) {
        self.still = still;
        if let Some((probe, _)) = self.probe.take() {
            self.kill(probe);
        }
        self.watched.rested(self.origin.elapsed());
    }

    /// Does what can be done without waiting. Whether the service is well, once a check has changed that.
    pub fn turn(&mut self, directory: &Directory, spec: &CheckSpec) -> Option<Health> {
        if let Some((probe, until)) = &mut self.killed
            && (probe.turn().is_some() || *until <= Instant::now())
        {
            self.killed = None;
        }
        if self.still {
            return None;
        }
        if let Some((probe, _)) = &mut self.probe
            && let Some(end) = probe.turn()
        {
            return self.ended(directory, end);
        }
        let now = self.origin.elapsed();
        match self.watched.next() {
            Next::CheckAt(at) if at <= now => {
                self.watched.begin(now);
                let begun = Moment::now();
                let process = spec.process.clone();
                match Probe::begin(directory, process, CheckResult::OUTPUT_BYTES) {
                    Ok(probe) => self.probe = Some((probe, begun)),
                    Err(error) => return self.failed(directory, begun, error.to_string()),
                }
                None
            }
            Next::FailedAt(at) if at <= now => {
                let (probe, begun) = self.probe.take()?;
                let (output, limit) = (probe.output(), self.timeout);
                self.kill(probe);
                let why = format!("the check has not ended in {} s", limit.as_secs_f64());
                self.failed(directory, begun, above(&output, &why))
            }
            _ => None,
        }
    }

    /// Why the service is what it is, in a line.
    pub fn reason(&self) -> String {
        let Some(last) = self.checked.results.back() else {
            return "nothing is known".into();
        };
        let said = last.output.lines().rev().find(|line| !line.is_empty());
        let said = said.unwrap_or_default();
        match last.code {
            Some(code) if said.is_empty() => format!("its check ended with exit code {code}"),
            Some(code) => format!("its check ended with exit code {code}: {said}"),
            None => said.into(),
        }
    }

    fn kill(&mut self, mut probe: Probe) {
        probe.kill();
        self.killed = Some((probe, Instant::now() + KILLING));
    }

    fn ended(&mut self, directory: &Directory, end: End) -> Option<Health> {
        let (probe, begun) = self.probe.take()?;
        let output = probe.output();
        match end {
            Ok(ended) => self.note(directory, begun, Some(ended.exit_code()), output),
            Err(why) => self.failed(directory, begun, above(&output, &why)),
        }
    }

    fn failed(&mut self, directory: &Directory, begun: Moment, why: String) -> Option<Health> {
        self.note(directory, begun, None, why)
    }

    fn note(
        &mut self,
        directory: &Directory,
        start: Moment,
        code: Option<u8>,
        output: String,
    ) -> Option<Health> {
        let changed = self.watched.ended(code == Some(0), self.origin.elapsed());
        let end = Moment::now();
        let result = CheckResult {
            start,
            end,
            code,
            output,
        };
        self.checked.add(result, self.watched.failures());
        if let Err(error) = self.checked.write(directory) {
            log::warn!("what a health check has said is not noted: {error}");
        }
        changed.then(|| self.watched.health())
    }
}

/// A line below others, if there are some.
fn above(text: &str, line: &str) -> String {
    match text {
        "" => line.into(),
        text => format!("{}\n{line}", text.trim_end_matches('\n')),
    }
}
