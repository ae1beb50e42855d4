//! A VM that is being saved: asleep, and told piece by piece.

use super::error::Error;
use super::lifecycle::State;
use super::vcpu::Shared;
use super::{restoring, time_elsewhere, workers};
use crate::snapshot::{Stream, VmState, encode};
use kvmlet_sys::thread::lock;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long devices have to bring to its end what is in flight.
const PATIENCE: Duration = Duration::from_secs(5);

/// A VM that sleeps, and is being told.
pub struct Saving {
    stream: Stream,
    shared: Arc<Shared>,
    was_running: bool,
}

impl Saving {
    /// The next [piece](crate::snapshot::Stream) for whoever writes the file; none when all are told.
    ///
    /// # Errors
    /// When guest memory cannot be read, which is a bug.
    pub fn next_piece(&mut self) -> io::Result<Option<&[u8]>> {
        self.stream.next(&self.shared.ram)
    }
}

impl super::VmHandle {
    /// Puts the VM to sleep, and begins to tell all of it: no vCPU executes guest code, devices have nothing in flight and
    /// disks have on them what was written, until [`end_saving`](Self::end_saving). It can be paused or run.
    ///
    /// # Errors
    /// [`Error::Transition`] when the VM has ended, [`Error::Unsettled`] when a disk does not answer in time, and what KVM
    /// does not tell. The VM goes on then.
    pub fn begin_saving(&self) -> Result<Saving, Error> {
        let mut moves = lock(&self.moves);
        if *moves {
            return Err(Error::BeingSaved);
        }
        if self.machine.nested {
            return Err(Error::Nested);
        }
        if self.has_pci {
            return Err(Error::SavedPci);
        }
        let was_running = match self.shared.lifecycle.pause() {
            Ok(()) => true,
            Err(State::Paused) => false,
            Err(from) => {
                let verb = "save";
                return Err(Error::Transition { verb, from });
            }
        };
        match self.tell() {
            Ok(state) => {
                *moves = true;
                Ok(Saving {
                    stream: Stream::new(encode(&state)),
                    shared: self.shared.clone(),
                    was_running,
                })
            }
            Err(error) => {
                self.go_on(was_running);
                Err(error)
            }
        }
    }

    /// Has a VM go on that was saved, or given up to be, if it ran before.
    pub fn end_saving(&self, saving: Saving) {
        let mut moves = lock(&self.moves);
        *moves = false;
        self.go_on(saving.was_running);
    }

    fn go_on(&self, was_running: bool) {
        // Unless it has ended meanwhile.
        if was_running && self.shared.lifecycle.resume().is_ok() {
            self.workers.wake();
        }
    }

    /// All of it but memory. Devices come before vCPUs: what they end interrupts these.
    fn tell(&self) -> Result<VmState, Error> {
        let settled = self.workers.rest(Instant::now() + PATIENCE);
        settled.map_err(|device| Error::Unsettled { device })?;
        for disk in &self.devices.disks {
            disk.sync().map_err(|source| Error::Host {
                what: "what was written to a disk of the VM a place there",
                source,
            })?;
        }
        let mut machine = self.machine.clone();
        restoring::look_at_disks(&self.devices, &mut machine.disks);
        let devices = workers::states(self.workers.transports());
        let told = self.shared.lifecycle.ask(self.counters.len());
        let told = told.map_err(|from| Error::Transition { verb: "save", from })?;
        let mut vcpus = told.into_iter().collect::<Result<Vec<_>, _>>()?;
        vcpus.sort_by_key(|vcpu| vcpu.number);
        Ok(VmState {
            machine,
            clock: time_elsewhere::clock(&self.fd)?,
            vcpus,
            ioapic: lock(self.shared.power_button.ioapic()).state(),
            serial: lock(&self.shared.serial).state(),
            exit_code: lock(&self.shared.power).exit_code(),
            generation: lock(&self.shared.generation).state(),
            devices,
        })
    }
}
