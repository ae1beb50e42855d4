//! Memory balloon (virtio 1.2 §5.5): how memory that a guest does not need comes back to the host.
//!
//! The guest's driver takes pages from its own kernel until as many are in the *balloon* as the host asks for,
//! and names them; they are given back there and then ([`GuestRam::give_back`](crate::memory::GuestRam)).
//! With free page reporting it also names, unasked, what lies free, and with statistics it tells, when asked,
//! how much memory it uses. All of it is the guest's good will: a guest can keep what it has, and use again what it gave,
//! up to the RAM that it was promised and no further.
//!
//! A page that the guest touches again is simply there, empty, so a driver need not wait for an answer before
//! it uses pages of the balloon again, and MUST_TELL_HOST is not offered (§5.5.3). Neither is PAGE_POISON: what
//! is given back reads as zeros, and a driver that wants other bytes there does without reporting (§5.5.6.7).
//! Free page hints, which are for migration, are not offered either.

mod handle;
mod pages;
mod statistics;
mod worker;

pub use handle::BalloonHandle;

use super::{
    Activation, DeviceSpec, DeviceState, DeviceType, Halted, NoEvents, QueueState, VirtioDevice,
    Worker, WorkerThread, foreign_state, places,
};
use crate::config::{self, Balloon, Memory};
use crate::thread::ThreadKind;
use handle::Shared;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use worker::QueueServer;

/// Entries of a queue. Linux names up to 32 free ranges at a time, by as many descriptors.
const QUEUE_SIZE: u16 = 64;

/// Feature bits (§5.5.3).
mod feature {
    pub const STATS_VQ: u64 = 1 << 1;
    pub const DEFLATE_ON_OOM: u64 = 1 << 2;
    pub const PAGE_REPORTING: u64 = 1 << 5;
}

/// Configuration space (§5.5.4): `num_pages`, then `actual`.
const ACTUAL_OFFSET: u64 = 4;
const CONFIG_BYTES: usize = 8;

/// Why a balloon does not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A size that leaves too little to the guest.
    #[error(transparent)]
    Size(#[from] config::Error),
    /// Nobody there to answer.
    #[error("the guest has no balloon driver that tells statistics")]
    NoDriver,
    /// The guest takes too long.
    #[error("the guest has not told its statistics within {} ms", .waited.as_millis())]
    NoAnswer {
        /// How long it had.
        waited: Duration,
    },
    /// The host refused to pass the request on.
    #[error("the balloon cannot be asked")]
    Host(#[from] io::Error),
}

/// What a driver has made of a balloon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalloonState {
    /// Pages of 4 KiB that are in it, as the guest has told.
    pub actual_pages: u32,
    /// The buffer of statistics that the device keeps, by the number of its first descriptor.
    pub held: Option<u16>,
}

/// The front of a balloon.
pub struct BalloonDevice {
    shared: Arc<Shared>,
    features: u64,
    active: bool,
    worker: Worker<QueueServer>,
}

/// A balloon in guest RAM of that size. A `config` that was checked fits it.
#[derive(Clone, Copy, Debug)]
pub struct BalloonSpec<'a> {
    /// What the user asked for.
    pub config: &'a Balloon,
    /// Guest RAM.
    pub memory: Memory,
}

impl DeviceSpec for BalloonSpec<'_> {
    type Device = BalloonDevice;
    type Handle = BalloonHandle;
    type Error = NoEvents;

    fn build(self) -> Result<(BalloonDevice, BalloonHandle), NoEvents> {
        let mut features = feature::STATS_VQ;
        if self.config.deflate_on_oom {
            features |= feature::DEFLATE_ON_OOM;
        }
        if self.config.reporting {
            features |= feature::PAGE_REPORTING;
        }
        let no_events = NoEvents::of("events for the balloon");
        let shared = Shared::new(self.config.size, self.memory).map_err(&no_events)?;
        let shared = Arc::new(shared);
        let device = BalloonDevice {
            shared: shared.clone(),
            features,
            active: false,
            worker: Worker::new("balloon", ThreadKind::Balloon).map_err(&no_events)?,
        };
        Ok((device, BalloonHandle(shared)))
    }
}

impl VirtioDevice for BalloonDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Balloon
    }

    fn name(&self) -> &str {
        "balloon"
    }

    fn features(&self) -> u64 {
        self.features
    }

    /// §5.5.2: inflate, deflate, statistics, free page hints, reports. Linux counts only the queues of features
    /// that both sides have, and so finds its reports at 3 or 2 instead of 4; see
    /// `QueueServer::new`.
    fn queue_sizes(&self) -> &[u16] {
        match self.features & feature::PAGE_REPORTING {
            0 => &[QUEUE_SIZE; 3],
            _ => &[QUEUE_SIZE; 5],
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut bytes = [0; CONFIG_BYTES];
        let fields = [&self.shared.target_pages, &self.shared.actual_pages];
        for (bytes, field) in bytes.chunks_exact_mut(4).zip(fields) {
            bytes.copy_from_slice(&field.load(Ordering::Acquire).to_le_bytes());
        }
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| bytes.get(offset..));
        for (to, from) in data.iter_mut().zip(rest.unwrap_or_default()) {
            *to = *from;
        }
    }

    /// A driver tells how many pages are in the balloon, by one access to the whole field (§4.2.2.2). Before
    /// it is ready there are none.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (true, ACTUAL_OFFSET, Ok(bytes)) = (self.active, offset, data.try_into()) {
            let pages = u32::from_le_bytes(bytes);
            self.shared.actual_pages.store(pages, Ordering::Release);
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation {
            features,
            queues,
            interrupt,
            state,
        } = activation;
        let state = match state {
            None => BalloonState::default(),
            Some(DeviceState::Balloon(state)) => state,
            Some(_) => return Err(foreign_state()),
        };
        let actual = &self.shared.actual_pages;
        actual.store(state.actual_pages, Ordering::Release);
        let _ = self.shared.interrupt.set(interrupt.clone());
        let server = QueueServer::new(features, queues, state.held, self.shared.clone());
        self.worker.work(server, &interrupt)?;
        self.active = true;
        Ok(())
    }

    fn halt(&mut self) -> Halted {
        let count = self.queue_sizes().len();
        let actual_pages = self.shared.actual_pages.load(Ordering::Acquire);
        let (queues, held) = self.worker.take().map(QueueServer::give_back).unzip();
        let held = held.flatten();
        let state = BalloonState { actual_pages, held };
        let queues = queues.into_iter().flatten();
        Halted::new(queues, count, DeviceState::Balloon(state))
    }

    fn look(&self) -> (Vec<Option<QueueState>>, DeviceState) {
        let actual_pages = self.shared.actual_pages.load(Ordering::Acquire);
        let (queues, held) = self.worker.look(QueueServer::look).unzip();
        let held = held.flatten();
        let queues = queues.into_iter().flatten();
        let state = DeviceState::Balloon(BalloonState { actual_pages, held });
        (places(queues, self.queue_sizes().len()), state)
    }

    /// The guest begins anew, with an empty balloon.
    fn reset(&mut self) {
        self.active = false;
        self.shared.actual_pages.store(0, Ordering::Release);
    }

    fn workers(&mut self) -> Vec<&mut dyn WorkerThread> {
        vec![&mut self.worker]
    }
}

#[cfg(test)]
mod tests;
