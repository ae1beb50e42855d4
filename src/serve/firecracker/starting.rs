//! How a VM comes to run, and is saved.

use super::description::describe;
use super::fault::Fault;
use super::pending::{Pending, Saving};
use super::phase::Phase;
use super::snapshot::{self, CreateSnapshot, LoadSnapshot, Loaded, SnapshotType};
use super::vm::Vm;
use super::vmm::Vmm;
use super::whole::Whole;
use kvmlet_control::Order;
use kvmlet_spec::JailMode;

impl Vm {
    /// Has the VM run that was described.
    pub fn start(&mut self) -> Result<(), Fault> {
        let mut config = describe(&self.machine, self.jail)?;
        config.pci = self.pci;
        let mut process = match self.process.take() {
            Some(process) => process,
            None => Vmm::prepare(&self.connected()?)?,
        };
        if let Some(warning) = self.metadata.warning(&self.machine) {
            self.log.warn(warning);
        }
        let told = process.configure(&config);
        self.process = Some(process);
        self.pending = Some(Pending::Start {
            phase: Phase::Running,
            loads: false,
            is_deprecated: false,
        });
        told
    }

    pub(super) fn load(&mut self, asked: &LoadSnapshot) -> Result<(), Fault> {
        if self.machine.has_devices() {
            return Err(Fault(
                "Loading a microVM snapshot not allowed after configuring boot-specific resources."
                    .into(),
            ));
        }
        let Loaded {
            file,
            pager,
            mut machine,
        } = asked.open()?;
        let mut words = snapshot::words(&machine, pager.as_deref())?;
        if self.jail == JailMode::Off {
            words.push("--no-jail".into());
        }
        if let Some(process) = self.process.take() {
            process.end();
        }
        let mut around = self.surroundings()?;
        around.answered = self.metadata.serve(&machine, self.log.file())?;
        self.process = Some(Vmm::restore(&file, words, !asked.resume_vm, &around)?);
        self.whole = match pager {
            None => Whole::at(&file),
            Some(_) => None,
        };
        // Where messages and measurements go is not saved.
        machine.logger = self.machine.logger.take();
        machine.metrics = self.machine.metrics.take();
        machine.serial = self.machine.serial.take();
        self.machine = machine;
        let phase = if asked.resume_vm {
            Phase::Running
        } else {
            Phase::Paused
        };
        self.pending = Some(Pending::Start {
            phase,
            loads: true,
            is_deprecated: asked.is_deprecated(),
        });
        Ok(())
    }

    pub(super) fn save(&mut self, asked: CreateSnapshot) -> Result<(), Fault> {
        if self.phase != Phase::Paused {
            return Err(Fault(
                "Create snapshot error: the microVM has to be paused.".into(),
            ));
        }
        asked.check()?;
        let base = match asked.snapshot_type {
            SnapshotType::Diff => self.whole.clone(),
            SnapshotType::Full => None,
        };
        self.begin_saving(asked, base)
    }

    /// Where nobody knows what has changed, all is written.
    pub(super) fn begin_saving(
        &mut self,
        asked: CreateSnapshot,
        base: Option<Whole>,
    ) -> Result<(), Fault> {
        let order = match &base {
            Some(base) => Order::SaveSince { base: base.id },
            None => Order::Save,
        };
        self.ask(order, |number| {
            Pending::Save(Box::new(Saving {
                number,
                asked,
                base,
                writing: None,
            }))
        })
    }
}
