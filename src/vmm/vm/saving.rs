//! A VM that is being saved, and told piece by piece: asleep, or while it runs, but for a moment.
//!
//! Where the host can tell which pages were written to, a VM that runs is told ahead: all of its memory, then again what has been
//! written to meanwhile, until that is little. For that it sleeps: what is told is the VM at this moment. A guest that writes
//! faster than it is told sleeps longer.
//!
//! From then on the kernel counts what is written to, so that a later snapshot can be the difference to this one, or to the one that
//! the VM goes on from: of memory that is told which pages these are, and nothing else.

use super::error::Error;
use super::lifecycle::State;
use super::since::Base;
use super::{restoring, time_elsewhere, workers};
use crate::memory::Part;
use crate::snapshot::{SnapshotId, VmState, encode, put, put_rest, put_unless_zero};
use kvmlet_sys::thread::lock;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// How long devices have to bring to its end what is in flight.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is copied at once of a VM that sleeps, and told when it runs again.
const LAST_BYTES: u64 = 2 << 20;
/// What it may have become by the moment that the VM sleeps.
const MOST_LAST_BYTES: u64 = 3 << 20;
/// No more is told again before it sleeps.
const MOST_SWEEPS: u32 = 8;
/// What is watched at once from then on when it is told for the first time: no large page is taken apart by that.
const STEP_BYTES: u64 = 2 << 20;

/// A VM that is being told.
pub struct Saving {
    /// What is told next.
    next: Next,
    /// What the snapshot is called.
    id: SnapshotId,
    /// What it is the difference to, if it is one.
    base: Option<Base>,
    /// The kernel counts what is written to from the moment on that it is told.
    counts: bool,
    /// Since when it sleeps, with all of it but memory.
    asleep: Option<(Instant, Vec<u8>)>,
    /// It is to run when it does not sleep.
    runs: bool,
    /// It sleeps on when all is told.
    stays: bool,
    stood_still: Duration,
    /// What was written to, and is told again.
    again: VecDeque<Part>,
    /// How far that was looked for.
    looked: u64,
    sweeps: u32,
    /// How much was written to, in this sweep and the one before.
    taken: u64,
    taken_before: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Next {
    /// Of a difference: which pages there are to be told.
    Changed,
    /// Memory, from there on.
    Memory(u64),
    /// What was written to since.
    Again,
    /// All else.
    Rest,
    Nothing,
}

impl super::VmHandle {
    /// Begins to tell all of the VM, which can be paused or run, or what of its memory has changed since a snapshot. It sleeps then, or
    /// sleeps at the end of that for a moment: no vCPU
    /// executes guest code, devices have nothing in flight and disks have on them what was written, at the moment that is told. One
    /// that `stays` sleeps on until [the end of that](Self::end_saving).
    ///
    /// # Errors
    /// [`Error::Transition`] when the VM has ended, [`Error::Unsettled`] when a disk does not answer in time, what KVM
    /// does not tell, and [`Error::OtherBase`] when that snapshot is not the last whole one, nor what it goes on from. The VM goes on then.
    pub fn begin_saving(&self, stays: bool, since: Option<SnapshotId>) -> Result<Saving, Error> {
        let mut moves = lock(&self.moves);
        if *moves {
            return Err(Error::BeingSaved);
        }
        if self.machine.nested {
            return Err(Error::Nested);
        }
        let runs = self.state() == State::Running;
        // Who stands still for good is the base of nothing.
        let counts = (runs || !stays) && self.counts();
        if since.is_some() && !counts {
            return Err(Error::Uncounted);
        }
        let mut known = lock(&self.since);
        let base = since.map(|id| known.take(id).ok_or(Error::OtherBase));
        let base = base.transpose()?;
        let mut saving = Saving {
            next: match base {
                Some(_) => Next::Changed,
                None => Next::Memory(0),
            },
            id: known.next_id(),
            base,
            counts,
            asleep: None,
            runs,
            stays,
            stood_still: Duration::ZERO,
            again: VecDeque::new(),
            looked: 0,
            sweeps: 0,
            taken: 0,
            taken_before: self.shared.ram.bytes(),
        };
        drop(known);
        if !(runs && counts)
            && let Err(error) = saving.sleep(self)
        {
            self.keep(&mut saving);
            return Err(error);
        }
        *moves = true;
        Ok(saving)
    }

    /// Adds the next piece for whoever writes the file, if there is one in what was looked at, and false when all are told.
    ///
    /// # Errors
    /// As [`begin_saving`](Self::begin_saving), and when guest memory cannot be read, which is a bug.
    pub fn go_on_saving(&self, saving: &mut Saving, pieces: &mut Vec<u8>) -> Result<bool, Error> {
        saving.step(self, pieces)
    }

    /// Has a VM go on that was saved, or given up to be, if it ran before; returns how long it has slept for that.
    pub fn end_saving(&self, mut saving: Saving) -> Duration {
        let mut moves = lock(&self.moves);
        self.keep(&mut saving);
        saving.wake(self);
        *moves = false;
        saving.stood_still
    }

    /// Knows what later snapshots can be the difference to. Whether anybody has kept one that is told, whoever names it knows.
    fn keep(&self, saving: &mut Saving) {
        let is_told = saving.next == Next::Nothing && saving.counts;
        let whole = || Base::of(saving.id, self.shared.ram.bytes());
        let base = saving.base.take().or_else(|| is_told.then(whole));
        lock(&self.since).keep(base);
    }

    /// Does the kernel count what is written to?
    fn counts(&self) -> bool {
        let Some(written) = &self.written else {
            return false;
        };
        let watched = self.shared.ram.watch(written);
        if let Err(error) = &watched {
            log::info!("the VM sleeps while it is saved: what it writes is not known: {error}");
        }
        watched.is_ok()
    }

    fn go_on(&self, was_running: bool) {
        // Unless it has ended meanwhile.
        if was_running && self.shared.lifecycle.resume().is_ok() {
            self.workers.wake();
        }
    }

    /// All of it but memory. Devices come before vCPUs: what they end interrupts these.
    fn tell(&self, saving: &Saving) -> Result<VmState, Error> {
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
            id: saving.id,
            base: saving.base.as_ref().map(|base| base.id),
            machine,
            clock: time_elsewhere::clock(&self.fd)?,
            vcpus,
            ioapic: lock(self.shared.power_button.ioapic()).state(),
            serial: lock(&self.shared.serial).state(),
            exit_code: lock(&self.shared.power).exit_code(),
            generation: lock(&self.shared.generation).state(),
            pci: self.pci.as_ref().map(|ports| lock(ports).address()),
            devices,
        })
    }
}

impl Saving {
    fn step(&mut self, vm: &super::VmHandle, pieces: &mut Vec<u8>) -> Result<bool, Error> {
        let ram = &vm.shared.ram;
        match self.next {
            Next::Changed if self.looked < ram.bytes() => self.look(vm)?,
            Next::Changed => {
                let changed = self.base.as_ref().map(|base| base.changed.parts());
                self.again = changed.into_iter().flatten().collect();
                self.next = Next::Again;
            }
            Next::Memory(place) if place < ram.bytes() => {
                let end = place + ram.rest_of_region(place);
                if self.counts
                    && let Some(written) = &vm.written
                    && place >= self.looked
                {
                    // Before it is read: what is written to from here on is told again.
                    self.looked = end.min(place / STEP_BYTES * STEP_BYTES + STEP_BYTES);
                    let part = place..self.looked;
                    ram.forget_written(written, part).map_err(untold)?;
                }
                let mut part = place..if self.counts { self.looked } else { end };
                put_unless_zero(ram, &mut part, pieces).map_err(untold)?;
                self.next = Next::Memory(part.start);
            }
            Next::Memory(_) if self.asleep.is_some() => self.next = Next::Rest,
            Next::Memory(_) => {
                self.next = Next::Again;
                self.settle(vm, pieces)?;
            }
            Next::Again => self.tell_again(vm, pieces)?,
            Next::Rest => {
                if let Some((_, state)) = &self.asleep {
                    put_rest(state, ram.bytes(), pieces);
                }
                self.next = Next::Nothing;
            }
            Next::Nothing => return Ok(false),
        }
        Ok(true)
    }

    /// Tells something of what was written to, or looks for more of that.
    fn tell_again(&mut self, vm: &super::VmHandle, pieces: &mut Vec<u8>) -> Result<(), Error> {
        let ram = &vm.shared.ram;
        if let Some(part) = self.again.front_mut() {
            put(ram, part, pieces).map_err(untold)?;
            if part.is_empty() {
                self.again.pop_front();
            }
        } else if self.looked < ram.bytes() {
            self.look(vm)?;
        } else if self.asleep.is_some() {
            self.next = Next::Rest;
        } else {
            self.settle(vm, pieces)?;
        }
        Ok(())
    }

    /// All is told, but for what was written to since: if that is little, or becomes no less, the VM sleeps until it is copied.
    fn settle(&mut self, vm: &super::VmHandle, pieces: &mut Vec<u8>) -> Result<(), Error> {
        let (ram, written) = (&vm.shared.ram, vm.written.as_ref());
        let count = written.map(|written| ram.count_written(written, LAST_BYTES));
        let is_little = count.transpose().map_err(untold)?.flatten().is_some();
        let stalls = self.taken > self.taken_before / 4 * 3;
        if self.sweeps > 0 {
            (self.taken_before, self.taken) = (self.taken, 0);
        }
        (self.looked, self.sweeps) = (0, self.sweeps + 1);
        if !is_little && !stalls && self.sweeps < MOST_SWEEPS {
            return Ok(());
        }
        let _in_turn = lock(&vm.moves);
        self.sleep(vm)?;
        while self.looked < ram.bytes() {
            self.look(vm)?;
        }
        let left: u64 = self.again.iter().map(|part| part.end - part.start).sum();
        // With heads of pieces, and the rest.
        let room = pieces.try_reserve_exact(left as usize + (1 << 20));
        if left > MOST_LAST_BYTES || room.is_err() {
            return Ok(()); // it sleeps on, and is told as others are
        }
        for mut part in std::mem::take(&mut self.again) {
            while !part.is_empty() {
                put(ram, &mut part, pieces).map_err(untold)?;
            }
        }
        if let Some((_, state)) = &self.asleep {
            put_rest(state, ram.bytes(), pieces);
        }
        if !self.stays {
            self.wake(vm);
        }
        self.next = Next::Nothing;
        Ok(())
    }

    /// Looks for what was written to, from where that was looked for.
    fn look(&mut self, vm: &super::VmHandle) -> Result<(), Error> {
        let (ram, Some(written)) = (&vm.shared.ram, &vm.written) else {
            return Ok(());
        };
        let part = self.looked..ram.bytes();
        let mut taken = Vec::new();
        let looked = ram.take_written(written, part, &mut taken);
        self.looked = looked.map_err(untold)?;
        if let Some(base) = &mut self.base {
            taken.iter().for_each(|part| base.changed.add(part));
            if self.next == Next::Changed {
                return Ok(());
            }
        }
        self.taken += taken.iter().map(|it| it.end - it.start).sum::<u64>();
        self.again.extend(taken);
        Ok(())
    }

    /// Has the VM sleep, and keeps all of it but memory.
    fn sleep(&mut self, vm: &super::VmHandle) -> Result<(), Error> {
        let begun = Instant::now();
        let was_running = match vm.shared.lifecycle.pause() {
            Ok(()) => true,
            Err(State::Paused) => false,
            Err(from) => {
                let verb = "save";
                return Err(Error::Transition { verb, from });
            }
        };
        match vm.tell(self) {
            Ok(state) => {
                self.asleep = Some((begun, encode(&state)));
                self.runs = was_running;
                Ok(())
            }
            Err(error) => {
                vm.go_on(was_running);
                Err(error)
            }
        }
    }

    fn wake(&mut self, vm: &super::VmHandle) {
        if let Some((since, _)) = self.asleep.take() {
            vm.go_on(self.runs);
            self.stood_still += since.elapsed();
        }
    }
}

fn untold(source: io::Error) -> Error {
    let what = "what its guest has in memory";
    Error::Host { what, source }
}
