//! One VM, from what is described of it to its end: what is asked of it, and when it has its answer.

use super::changes;
use super::code;
use super::fault::Fault;
use super::flags::VERSION;
use super::log::{self, Log};
use super::machine::{Component, Machine};
use super::metadata::Metadata;
use super::metrics;
use super::model::{ActionType, BalloonStatsPatch, VmState};
use super::pending::Pending;
use super::phase::Phase;
use super::route::{Call, Told, When, route};
use super::vmm::{Surroundings, Vmm};
use super::whole::Whole;
use crate::http::{Answer, Request};
use crate::metadata::Version;
use kvmlet_control::Order;
use kvmlet_spec::{JailMode, Outcome, Reason, Stats};
use kvmlet_sys::wait::Slot;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

/// How often measurements are written that nobody asks for.
const MEASURED: Duration = Duration::from_secs(60);

/// A VM, and what it is to be.
#[derive(Debug)]
pub struct Vm {
    id: String,
    pub(super) log: Log,
    pub(super) machine: Machine,
    pub(super) jail: JailMode,
    /// Its devices are on a PCI bus.
    pub(super) pci: bool,
    start_us: Option<u64>,
    pub(super) phase: Phase,
    pub(super) process: Option<Vmm>,
    /// What its guest is told of itself.
    pub(super) metadata: Metadata,
    pub(super) pending: Option<Pending>,
    /// What a snapshot of it can be the difference to.
    pub(super) whole: Option<Whole>,
    /// What it has told of itself last.
    pub(super) stats: Option<Stats>,
    /// How it has ended, while its process goes.
    pub(super) outcome: Option<Outcome>,
    output: Option<File>,
    metrics: Option<(File, metrics::Told)>,
    measured: Instant,
    /// The exit code of this process, once that is to end.
    pub(super) exit: Option<u8>,
}

impl Vm {
    pub fn new(
        id: String,
        log: Log,
        machine: Machine,
        jail: JailMode,
        start_us: Option<u64>,
    ) -> Self {
        Self {
            id,
            log,
            machine,
            jail,
            pci: false,
            start_us,
            phase: Phase::NotStarted,
            process: None,
            metadata: Metadata::default(),
            pending: None,
            whole: None,
            stats: None,
            outcome: None,
            output: None,
            metrics: None,
            measured: Instant::now(),
            exit: None,
        }
    }

    /// Opens what was named by then.
    pub fn open(&mut self) -> Result<(), Fault> {
        if let Some(logger) = &self.machine.logger {
            let (level, shown) = (logger.level, logger.show_level);
            let path = logger.log_path.as_deref();
            self.log.set(path, level, shown, logger.show_log_origin)?;
        }
        if let Some(metrics) = &self.machine.metrics {
            let file = log::open(&metrics.metrics_path)?;
            self.metrics = Some((file, metrics::Told::default()));
        }
        let serial = self.machine.serial.as_ref();
        if let Some(path) = serial.and_then(|serial| serial.serial_out_path.as_deref()) {
            self.output = Some(log::open(path)?);
        }
        Ok(())
    }

    /// Starts a process that waits for a VM, instead of one that does so with other surroundings.
    pub fn prepare(&mut self) {
        if let Some(process) = self.process.take() {
            process.end();
        }
        let around = self.connected();
        match around.and_then(|around| Vmm::prepare(&around)) {
            Ok(process) => self.process = Some(process),
            Err(Fault(why)) => self.log.error(&why),
        }
    }

    pub(super) fn surroundings(&self) -> Result<Surroundings, Fault> {
        let output = self.output.as_ref().map(File::try_clone).transpose();
        Ok(Surroundings {
            log: self.log.file(),
            output: output.map_err(|error| Fault(error.to_string()))?,
            verbosity: self.log.verbosity(),
            answered: Vec::new(),
        })
    }

    /// The same, with who answers the guest that is described.
    pub(super) fn connected(&mut self) -> Result<Surroundings, Fault> {
        let mut around = self.surroundings()?;
        around.answered = self.metadata.serve(&self.machine, self.log.file())?;
        Ok(around)
    }

    /// The exit code of this process, once the VM has ended.
    pub fn exit(&self) -> Option<u8> {
        self.exit
    }

    /// Has its guest run, or might it have?
    pub fn has_started(&self) -> bool {
        self.phase != Phase::NotStarted
    }

    /// Cuts its power, and waits until all that was made for it is cleared away.
    pub fn end(&mut self) {
        if let Some(process) = self.process.take() {
            process.end();
        }
    }

    /// Nothing more is asked for now: something has no answer yet.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// What is waited for on its behalf.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let process = self.process.iter().flat_map(Vmm::slots);
        process.chain(self.pending.iter().map(Pending::slot))
    }

    /// When there is something to do without any of that.
    pub fn due(&self) -> Option<Instant> {
        let measures = self.metrics.is_some() && self.phase != Phase::NotStarted;
        (measures && !self.is_busy()).then(|| self.measured + MEASURED)
    }

    /// Answers a request now, or not yet.
    pub fn handle(&mut self, request: &Request) -> Option<Answer> {
        let (method, path) = (request.method.name(), &request.path);
        let handled = route(request).and_then(|call| self.call(call));
        match &handled {
            Ok(_) => self
                .log
                .info(&format!("The request is taken: {method} {path}")),
            Err(Fault(why)) => self
                .log
                .error(&format!("{method} {path} is refused: {why}")),
        }
        handled.unwrap_or_else(|fault| Some(fault.answer()))
    }

    fn call(&mut self, call: Call) -> Result<Option<Answer>, Fault> {
        match (call.when(), self.phase) {
            (When::Before, Phase::Running | Phase::Paused) => return Err(Fault::too_late()),
            (When::After, Phase::NotStarted) => return Err(Fault::too_early()),
            _ => {}
        }
        match call {
            Call::Tell(what) => return self.tell(what).map(Some),
            Call::Set(component) => return self.set(component).map(Some),
            Call::PatchMachine(patch) => {
                let is_deprecated = patch.cpu_template.is_some();
                self.machine.patch(patch)?;
                let mut answer = Answer::done();
                answer.is_deprecated = is_deprecated;
                return Ok(Some(answer));
            }
            Call::Act(ActionType::InstanceStart) => self.start()?,
            Call::Act(ActionType::SendCtrlAltDel) => self.order(Order::Press)?,
            Call::Act(ActionType::FlushMetrics) => self.measure()?,
            Call::BalloonStats => {
                changes::statistics(&self.machine)?;
                self.ask(Order::Stats, Pending::balloon)?;
            }
            Call::PatchBalloonStats(patch) => return self.poll(patch).map(Some),
            Call::PatchBalloon(patch) => self.change(changes::balloon(&self.machine, patch)?)?,
            Call::PatchDrive(patch) => self.change(changes::drive(&self.machine, &patch)?)?,
            Call::PatchNetwork(patch) => self.change(changes::interface(&self.machine, &patch)?)?,
            Call::Move(state) => return self.go(state),
            Call::Save(asked) => self.save(asked)?,
            Call::Load(asked) => self.load(&asked)?,
            Call::PutMetadata(data) => return self.metadata.put(data, self.phase).map(Some),
            Call::PatchMetadata(data) => return self.metadata.merge(data, self.phase).map(Some),
        }
        Ok(None)
    }

    fn tell(&self, what: Told) -> Result<Answer, Fault> {
        let none = || Fault("No balloon device was found.".into());
        Ok(Answer::told(
            match what {
                Told::Instance => json!({
                    "app_name": "Firecracker",
                    "id": self.id,
                    "state": self.phase.name(),
                    "vmm_version": VERSION,
                }),
                Told::Version => json!({ "firecracker_version": VERSION }),
                Told::Config => json!(self.machine),
                Told::Machine => json!(self.machine.machine_config),
                Told::Balloon => json!(self.machine.balloon.ok_or_else(none)?),
                Told::Metadata => self.metadata.told(self.phase)?,
            }
            .to_string(),
        ))
    }

    fn set(&mut self, component: Component) -> Result<Answer, Fault> {
        let opens = matches!(
            component,
            Component::Logger(_) | Component::Metrics(_) | Component::Serial(_)
        );
        let is_deprecated = match &component {
            Component::Machine(machine) => machine.cpu_template.is_some(),
            Component::Vsock(vsock) => vsock.vsock_id.is_some(),
            Component::Mmds(config) => config.version == Version::V1,
            _ => false,
        };
        let connects = matches!(component, Component::Mmds(_));
        if !opens {
            self.machine.set(component)?;
            if connects && self.process.is_some() {
                self.prepare();
            }
        } else {
            let before = self.machine.clone();
            let opened = self.machine.set(component).and_then(|()| self.open());
            if opened.is_err() {
                self.machine = before;
            }
            opened?;
            if self.process.is_some() {
                self.prepare();
            }
        }
        let mut answer = Answer::done();
        answer.is_deprecated = is_deprecated;
        Ok(answer)
    }

    /// Describes the VM as a file does, beside what the command line has said.
    pub fn describe(&mut self, mut described: Machine) -> Result<(), Fault> {
        described.metrics = described.metrics.or(self.machine.metrics.take());
        self.machine = described;
        self.open()
    }

    fn go(&mut self, state: VmState) -> Result<Option<Answer>, Fault> {
        let (order, phase) = match state {
            VmState::Paused => (Order::Pause, Phase::Paused),
            VmState::Resumed => (Order::Resume, Phase::Running),
        };
        if self.phase == phase {
            return Ok(Some(Answer::done()));
        }
        self.ask(order, |number| Pending::Move { number, phase })?;
        Ok(None)
    }

    fn poll(&mut self, patch: BalloonStatsPatch) -> Result<Answer, Fault> {
        let interval = patch.stats_polling_interval_s;
        let balloon = self.machine.balloon.as_mut();
        let balloon = balloon.ok_or_else(|| Fault("No balloon device was found.".into()))?;
        if (balloon.stats_polling_interval_s == 0) != (interval == 0) {
            return Err(Fault(
                "Statistics of the balloon are told, or not, from the start of the microVM on."
                    .into(),
            ));
        }
        balloon.stats_polling_interval_s = interval;
        Ok(Answer::done())
    }

    /// Has measurements be written.
    pub fn measure(&mut self) -> Result<(), Fault> {
        self.measured = Instant::now();
        if self.metrics.is_none() {
            return Err(Fault(
                "There is no metrics_path: PUT /metrics names one.".into(),
            ));
        }
        self.ask(Order::Stats, Pending::metrics)
    }

    fn order(&mut self, order: Order) -> Result<(), Fault> {
        self.change((vec![order], self.machine.clone()))
    }

    fn change(&mut self, (mut orders, machine): (Vec<Order>, Machine)) -> Result<(), Fault> {
        orders.reverse();
        let Some(first) = orders.pop() else {
            return Err(Fault("Nothing is to be changed.".into()));
        };
        let machine = Box::new(machine);
        self.ask(first, |number| Pending::Change {
            number,
            orders,
            machine,
        })
    }

    pub(super) fn ask(
        &mut self,
        order: Order,
        pending: impl FnOnce(u32) -> Pending,
    ) -> Result<(), Fault> {
        let process = self.process.as_mut().ok_or_else(Fault::ended)?;
        self.pending = Some(pending(process.ask(order)));
        Ok(())
    }

    /// Writes a line of measurements.
    pub(super) fn write_metrics(&mut self) -> Result<(), Fault> {
        let (Some((file, told)), Some(stats)) = (&mut self.metrics, &self.stats) else {
            return Err(Fault("The microVM has told no measurements.".into()));
        };
        let line = told.line(
            &self.id,
            stats,
            (&self.machine, self.metadata.counted()),
            self.start_us,
        );
        let written = file.write_all(line.as_bytes());
        written.map_err(|error| Fault(format!("Measurements cannot be written: {error}")))
    }

    /// The VM has ended for good, and so does this process.
    pub(super) fn finish(&mut self, outcome: &Outcome) {
        if let Some(failure) = &outcome.failure {
            self.log.error(&Fault::of_failure(failure, None).0);
        }
        self.log
            .info(&format!("The microVM has ended: {:?}", outcome.reason));
        self.exit = Some(match outcome.reason {
            Reason::Forbidden => code::FORBIDDEN,
            Reason::Failed | Reason::Killed => code::FAILED,
            Reason::Signal => outcome
                .signal
                .map_or(code::FAILED, |signal| 128 + signal as u8),
            _ => 0,
        });
    }
}

#[cfg(test)]
#[path = "deprecated_tests.rs"]
mod tests;
