//! What a device and its driver have agreed on, as plain data: told of a device that rests, and taken up by another one of
//! the same kind.
//!
//! What is taken up may come from anybody. It is checked as what a driver writes is, and nothing that it says of a queue
//! is believed without a look at guest memory.

use super::negotiation::{DRIVER_OK, EVERY_STATUS, RING_EVENT_IDX};
use super::session::{Activity, Session};
use super::setup::{QueueRecord, QueueSetup};
use crate::devices::virtio::queue::QueueParts;
use crate::devices::virtio::rate_limiter::Level;
use crate::devices::virtio::{DeviceState, DeviceType, Halted, Virtqueue};

/// How far a device has come with its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// What kind of device it is (virtio 1.2 §5).
    pub device_type: u32,
    /// The device status field, as the driver has written it.
    pub status: u32,
    /// It has met something that only a reset mends.
    pub needs_reset: bool,
    /// The features that the driver has accepted.
    pub driver_features: u64,
    /// The generation of its configuration space.
    pub generation: u32,
    /// Its queues, by their numbers.
    pub queues: Vec<QueueRecord>,
    /// What else the driver relies on, if the device works.
    pub device: Option<DeviceState>,
    /// How full the buckets of its rate limits are: operations and bytes of each.
    pub levels: Vec<[Option<Level>; 2]>,
}

/// Why a device cannot go on with the state of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// Another kind of device.
    #[error("it is of another kind than the device was")]
    Kind,
    /// Other features.
    #[error("its driver relies on features that it does not have now ({0:#x})")]
    Features(u64),
    /// Another number of queues.
    #[error("it has {has} queues, and the device had {had}")]
    Queues {
        /// Its own.
        has: usize,
        /// The other's.
        had: usize,
    },
    /// A queue that no driver could have set up.
    #[error("its queue {0} is not in guest memory")]
    Queue(usize),
    /// A status that no driver could have written.
    #[error("its status makes no sense")]
    Status,
    /// Of a device that is reached in another way.
    #[error("its registers are another kind's, or those of a function with other messages")]
    Function,
    /// State that no device could have had.
    #[error("what it was doing makes no sense")]
    Device,
}

/// The longest frame with its header that an interface keeps (virtio 1.2 §5.1.6.3.1), with room to spare.
const LONGEST_FRAME: usize = 66_000;

impl Session {
    /// How far it has come, of a device that [rests](Self::rest) or [sleeps](Self::sleep).
    pub fn state(&mut self) -> SessionState {
        self.look_after_halt();
        let works = !self.interrupt.is_broken();
        let (progress, device) = match &self.activity {
            Activity::Active if works => {
                let (queues, state) = self.device.look();
                (queues, Some(state))
            }
            Activity::Asleep(halted) if works => {
                let queues = halted.queues.iter();
                let states = queues.map(|queue| queue.as_ref().map(Virtqueue::state));
                (states.collect(), Some(halted.state.clone()))
            }
            _ => (Vec::new(), None),
        };
        let record = |(number, queue): (usize, &QueueSetup)| QueueRecord {
            size: queue.size,
            ready: queue.ready,
            descriptors: queue.descriptors,
            driver: queue.driver,
            device: queue.device,
            progress: progress.get(number).copied().flatten(),
        };
        let limiters = self.device.limiters().into_iter();
        SessionState {
            device_type: self.device.device_type() as u32,
            status: self.status,
            needs_reset: self.interrupt.is_broken(),
            driver_features: self.driver_features,
            generation: self.interrupt.generation(),
            queues: self.queues.iter().enumerate().map(record).collect(),
            device,
            levels: limiters.map(|limiter| limiter.levels()).collect(),
        }
    }

    /// Goes on where another has stopped, once it is [woken](Self::wake). No driver has touched it, or it sleeps.
    ///
    /// # Errors
    /// When it is none that could. It is as it was then.
    pub fn take_up(&mut self, state: &SessionState) -> Result<(), Unfit> {
        let works = state.status & DRIVER_OK != 0;
        self.check(state)?;
        let halted = match &state.device {
            Some(device) if works && !state.needs_reset => Some(self.halted_as(state, device)?),
            _ => None,
        };
        for (queue, record) in self.queues.iter_mut().zip(&state.queues) {
            (queue.size, queue.ready) = (record.size, record.ready);
            (queue.descriptors, queue.driver) = (record.descriptors, record.driver);
            queue.device = record.device;
        }
        (self.status, self.driver_features) = (state.status, state.driver_features);
        self.interrupt
            .resume(state.generation, works, state.needs_reset);
        for (limiter, levels) in self.device.limiters().into_iter().zip(&state.levels) {
            limiter.set_levels(*levels);
        }
        self.activity = match halted {
            Some(halted) => Activity::Asleep(halted),
            None => Activity::Idle,
        };
        Ok(())
    }

    fn check(&mut self, state: &SessionState) -> Result<(), Unfit> {
        if state.device_type != self.device.device_type() as u32 {
            return Err(Unfit::Kind);
        }
        let (has, had) = (self.queues.len(), state.queues.len());
        if has != had {
            return Err(Unfit::Queues { has, had });
        }
        let missing = state.driver_features & !self.device_features();
        if missing != 0 {
            return Err(Unfit::Features(missing));
        }
        if state.status & !EVERY_STATUS != 0 {
            return Err(Unfit::Status);
        }
        let fits = match (&state.device, self.device.device_type()) {
            (None, _) | (Some(DeviceState::Rng), DeviceType::Rng) => true,
            (Some(DeviceState::Block(_)), DeviceType::Block) => true,
            (Some(DeviceState::Balloon(_)), DeviceType::Balloon) => true,
            (Some(DeviceState::Vsock), DeviceType::Socket) => true,
            (Some(DeviceState::Net(net)), DeviceType::Net) => {
                let mut frames = net.frames.iter().flatten();
                frames.all(|frame| frame.len() <= LONGEST_FRAME)
                    && net.frames.len() <= had
                    // A control queue comes behind pairs.
                    && (1..=had / 2).contains(&net.pairs.into())
            }
            _ => false,
        };
        fits.then_some(()).ok_or(Unfit::Device)
    }

    /// Queues as they were, built as those are that a driver has just set up.
    fn halted_as(&self, state: &SessionState, device: &DeviceState) -> Result<Halted, Unfit> {
        let event_idx = state.driver_features & RING_EVENT_IDX != 0;
        let mut queues = Vec::with_capacity(self.queues.len());
        for (number, (own, record)) in self.queues.iter().zip(&state.queues).enumerate() {
            let Some(progress) = record.progress.filter(|_| record.ready) else {
                queues.push(None);
                continue;
            };
            let wrong = Unfit::Queue(number);
            let parts = QueueParts {
                number: number as u16,
                size_max: own.size_max,
                event_idx,
                rings: own.find_as(record, &self.memory).ok_or(wrong)?,
                interrupt: self.interrupt.clone(),
                notified: own.notify.try_clone().map_err(|_| wrong)?,
            };
            let queue = Virtqueue::new(parts);
            queues.push(Some(queue.resumed(progress)));
        }
        let state = device.clone();
        Ok(Halted { queues, state })
    }
}
