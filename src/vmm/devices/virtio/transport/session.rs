//! A device and its driver, from reset to reset.

use super::Doorbell;
use super::selection::Selection;
use super::setup::QueueSetup;
use crate::devices::virtio::interrupt::{Interrupt, Signal};
use crate::devices::virtio::{Halted, Patience, VirtioDevice};
use crate::memory::GuestRam;
use crate::thread::{Beginning, OnStart, ThreadKind};
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// What the device does with its queues.
pub(super) enum Activity {
    /// Nothing, and it has none.
    Idle,
    /// Its workers serve them.
    Active,
    /// Its workers have been called off and have not let go of them yet.
    Halting,
    /// Nothing, and here they are.
    Asleep(Halted),
}

/// A device, what its driver has agreed on with it, and what the device does about it.
pub struct Session {
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) memory: GuestRam,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) doorbell: Option<Box<dyn Doorbell>>,
    pub(super) status: u32,
    pub(super) activity: Activity,
    pub(super) driver_features: u64,
    pub(super) queues: Vec<QueueSetup>,
    /// What the driver has selected.
    pub selection: Selection,
}

impl Session {
    /// A device that no driver has touched, which tells its driver by that signal.
    ///
    /// # Errors
    /// When the host gives no events for its queues.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestRam,
        signal: Arc<dyn Signal>,
    ) -> io::Result<Self> {
        let queues = device
            .queue_sizes()
            .iter()
            .map(|size| QueueSetup::new(*size))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            interrupt: Arc::new(Interrupt::new(device.name(), signal)),
            device,
            memory,
            doorbell: None,
            status: 0,
            activity: Activity::Idle,
            driver_features: 0,
            queues,
            selection: Selection::default(),
        })
    }

    /// Spares notifications the way through the transport while the driver is ready.
    pub fn set_doorbell(&mut self, doorbell: Box<dyn Doorbell>) {
        self.doorbell = Some(doorbell);
    }

    /// The device.
    pub fn device(&mut self) -> &mut dyn VirtioDevice {
        &mut *self.device
    }

    /// The generation of its configuration space (§2.5.1).
    pub fn generation(&self) -> u32 {
        self.interrupt.generation()
    }

    /// Begins to start the threads that will serve the queues. Those that are not started here start when they
    /// are needed.
    ///
    /// # Errors
    /// When the host gives no threads.
    pub fn start_workers(&mut self, on_start: &Arc<OnStart>) -> io::Result<Vec<Beginning>> {
        let workers = self.device.workers().into_iter();
        let begun = workers.filter_map(|worker| worker.start(on_start).transpose());
        begun.collect()
    }

    /// What the threads do that serve the queues.
    pub fn threads(&mut self) -> Vec<ThreadKind> {
        let workers = self.device.workers().into_iter();
        workers.map(|worker| worker.kind()).collect()
    }

    /// Tells the device to stand still, and does not wait until it does. Its driver does as well: no vCPU runs.
    pub fn pause(&mut self) {
        let workers = self.device.workers().into_iter();
        workers.for_each(|worker| worker.pause());
    }

    /// Waits until the device stands still, but not longer than that; returns whether it does.
    pub fn is_still(&mut self, patience: Patience) -> bool {
        let mut workers = self.device.workers().into_iter();
        workers.all(|worker| worker.is_still(patience))
    }

    /// Has the device go on that [stood still](Self::pause), or [rested](Self::rest).
    pub fn resume(&mut self) {
        self.thaw();
        let workers = self.device.workers().into_iter();
        workers.for_each(|worker| worker.wake());
    }

    /// Tells the device to end all work, for good, and does not wait for it.
    pub fn call_off(&mut self) {
        let workers = self.device.workers().into_iter();
        workers.for_each(|worker| worker.call_off());
    }

    /// Waits until the device works on nothing any more, but no longer than until then; returns whether it does.
    pub fn has_let_go(&mut self, deadline: Instant) -> bool {
        let mut workers = self.device.workers().into_iter();
        workers.all(|worker| worker.has_let_go(deadline))
    }
}
