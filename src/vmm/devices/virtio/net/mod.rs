//! Network interface (virtio 1.2 §5.1).
//!
//! A [`NetDevice`] has a [`Port`] for each pair of queues, and a thread for each pair that the driver has set
//! up. Frames go between port and guest memory by one vectored read or write each, without a copy. What a
//! guest does not receive in time stays in the port or is dropped; it holds up nothing but that queue.

mod control;
mod header;
mod kernel;
mod lane;
mod metadata;
mod port;
mod receive;
mod serving;
mod socket;
mod stats;
mod step;
mod tap;
mod transmit;
mod worker;

pub use super::Iovecs;
pub use kernel::Unusable;
pub use metadata::{WithMetadata, concerns};
pub use port::{Offloads, Port};
pub use stats::{Direction, NetHandle};

use super::rate_limiter::RateLimiter;
use super::{
    Activation, DeviceSpec, DeviceState, DeviceType, Halted, Polling, QueueState, VirtioDevice,
    Virtqueue, Worker, WorkerThread, foreign_state, places,
};
use crate::config::{MacAddress, RateLimit};
use crate::thread::ThreadKind;
use control::Control;
use header::feature;
use kernel::{Kernel, KernelPair};
use lane::Lane;
use receive::Receiver;
use serving::Serving;
use stats::{Shared, count};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use transmit::Transmitter;
use worker::Pair;

const QUEUE_SIZE: u16 = 256;
const CONTROL_QUEUE_SIZE: u16 = 64;
/// VIRTIO_NET_S_LINK_UP (§5.1.4).
const LINK_UP: u16 = 1;

/// What every interface offers.
const FEATURES: u64 = feature::CSUM
    | feature::GUEST_CSUM
    | feature::CTRL_GUEST_OFFLOADS
    | feature::MAC
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::GUEST_ECN
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::MRG_RXBUF
    | feature::STATUS
    | feature::CTRL_VQ;

/// What an interface is like.
#[derive(Clone, Debug)]
pub struct NetParams {
    /// A short name for messages and threads: `eth0`.
    pub name: String,
    /// The guest's hardware address.
    pub mac: MacAddress,
    /// The largest packet that the guest may send and receive without segmentation, in bytes, if it is to be
    /// told.
    pub mtu: Option<u16>,
    /// Limit towards the guest.
    pub receive_limit: RateLimit,
    /// Limit from the guest.
    pub transmit_limit: RateLimit,
    /// How long each thread looks for frames, at the most, before it sleeps; zero for not at all.
    pub poll: Duration,
    /// The host's kernel serves the queues itself.
    pub vhost: bool,
}

/// A network interface of a VM.
pub struct NetSpec {
    /// What it is like.
    pub params: NetParams,
    /// Its far ends: as many queue pairs as there are.
    pub ports: Vec<Arc<dyn Port>>,
}

impl DeviceSpec for NetSpec {
    type Device = NetDevice;
    type Handle = NetHandle;
    type Error = Unusable;

    fn build(self) -> Result<(NetDevice, NetHandle), Unusable> {
        let Self { params, ports } = self;
        let kernels = match params.vhost {
            false => Vec::new(),
            true if !ports.iter().all(|port| port.is_the_kernels()) => return Err(Unusable::Port),
            true => (ports.iter().map(|_| Kernel::open())).collect::<Result<_, _>>()?,
        };
        NetDevice::new(params, ports, kernels).map_err(Unusable::Events)
    }
}

/// What a driver has made of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetState {
    /// Queue pairs that it receives by.
    pub pairs: u16,
    /// The features that frames towards the guest may make use of.
    pub offloads: u64,
    /// For each pair the frame that has come and waits for the guest, with its header.
    pub frames: Vec<Option<Vec<u8>>>,
}

/// The front of an interface.
pub struct NetDevice {
    params: NetParams,
    lanes: Arc<[Lane]>,
    queue_sizes: Vec<u16>,
    shared: Arc<Shared>,
    /// One for each queue pair.
    workers: Vec<Worker<Serving>>,
    /// One for each of them, if the kernel serves.
    kernels: Vec<Arc<Kernel>>,
}

impl NetDevice {
    /// An interface with as many queue pairs as there are ports, and a handle to it that stays valid. With as many kernels,
    /// these serve the pairs.
    ///
    /// # Errors
    /// Without a port, or when the host gives no events.
    fn new(
        params: NetParams,
        ports: Vec<Arc<dyn Port>>,
        kernels: Vec<Kernel>,
    ) -> io::Result<(Self, NetHandle)> {
        if ports.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let lanes: Arc<[Lane]> = ports.into_iter().map(Lane::new).collect::<Result<_, _>>()?;
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * lanes.len()];
        queue_sizes.push(CONTROL_QUEUE_SIZE);
        let kind = match kernels.is_empty() {
            true => ThreadKind::Net,
            false => ThreadKind::Vhost,
        };
        let workers = (0..lanes.len())
            .map(|index| Worker::new(format!("{}-{index}", params.name), kind))
            .collect::<io::Result<_>>()?;
        let is_kernels = !kernels.is_empty();
        let shared = Shared::new(params.receive_limit, params.transmit_limit, is_kernels);
        let shared = Arc::new(shared);
        let handle = NetHandle(shared.clone());
        let device = Self {
            params,
            lanes,
            queue_sizes,
            shared,
            workers,
            kernels: kernels.into_iter().map(Arc::new).collect(),
        };
        Ok((device, handle))
    }

    /// struct virtio_net_config (§5.1.4) as far as the offered features make its fields exist.
    fn config(&self) -> [u8; 12] {
        let mut config = [0; 12];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.params.mac.octets());
        put(6, &LINK_UP.to_le_bytes());
        if self.lanes.len() > 1 {
            put(8, &(self.lanes.len() as u16).to_le_bytes());
        }
        if let Some(mtu) = self.params.mtu {
            put(10, &mtu.to_le_bytes());
        }
        config
    }

    /// What its driver has made of it, with the frames that wait.
    fn state(&self, frames: Vec<Option<Vec<u8>>>) -> NetState {
        let pairs = self.lanes.iter().filter(|lane| lane.is_active()).count();
        NetState {
            pairs: pairs as u16,
            offloads: self.shared.offloads.load(Ordering::Acquire),
            frames,
        }
    }

    fn complain(&self, what: impl std::fmt::Display) {
        if let Some(interrupt) = self.shared.interrupt.get() {
            interrupt.complain(what);
        }
    }

    fn start(&mut self, activation: Activation) -> io::Result<()> {
        let Activation {
            features,
            mut queues,
            interrupt,
            state,
        } = activation;
        let features = header::usable(features);
        let state = match state {
            None => NetState {
                pairs: 1,
                offloads: features,
                frames: Vec::new(),
            },
            Some(DeviceState::Net(state)) => state,
            Some(_) => return Err(foreign_state()),
        };
        let mut take = |number: usize| queues.get_mut(number).and_then(Option::take);
        // §5.1.2: without MQ there is one pair, and the control queue comes right behind it.
        let pairs = match features & feature::MQ {
            0 => 1,
            _ => self.lanes.len(),
        };
        let _ = self.shared.interrupt.set(interrupt.clone());
        self.shared
            .offloads
            .store(state.offloads, Ordering::Release);
        for (index, lane) in self.lanes.iter().enumerate() {
            lane.port.set_offloads(header::offloads(state.offloads))?;
            lane.set_active(index < state.pairs.into())?;
        }
        let mut control = match features & feature::CTRL_VQ {
            0 => None,
            _ => take(2 * pairs),
        }
        .map(|queue: Virtqueue| {
            let (lanes, shared) = (self.lanes.clone(), self.shared.clone());
            Control::new(queue, lanes, shared, features)
        });
        for index in 0..pairs {
            let port = || self.lanes[index].port.clone();
            let control = control.take();
            if let Some(kernel) = self.kernels.get(index) {
                // One that waits for the guest in a state that another process has left.
                let lost = state.frames.get(index).into_iter().flatten().count();
                count(&self.shared.receive.counters.drops, lost as u64);
                let queues = [take(2 * index), take(2 * index + 1)];
                if queues.iter().all(Option::is_none) && control.is_none() {
                    continue;
                }
                let (lane, shared) = ((self.lanes.clone(), index), self.shared.clone());
                let pair = KernelPair::new(kernel.clone(), features, queues, lane, control, shared);
                self.workers[index].work(Serving::Kernel(pair), &interrupt)?;
                continue;
            }
            let mut receiver = take(2 * index)
                .map(|queue| Receiver::new(queue, port(), self.shared.clone(), features))
                .transpose()?;
            if let Some(Some(frame)) = state.frames.get(index) {
                receiver = receiver.map(|receiver| receiver.with_frame(frame));
            }
            let transmitter = take(2 * index + 1)
                .map(|queue| Transmitter::new(queue, port(), self.shared.clone(), features))
                .transpose()?;
            if receiver.is_none() && transmitter.is_none() && control.is_none() {
                continue;
            }
            let pair = Pair {
                lanes: self.lanes.clone(),
                index,
                receiver,
                transmitter,
                control,
                shared: self.shared.clone(),
                polling: Polling::new(self.params.poll),
            };
            self.workers[index].work(Serving::Thread(pair), &interrupt)?;
        }
        Ok(())
    }
}

impl VirtioDevice for NetDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Net
    }

    fn name(&self) -> &str {
        &self.params.name
    }

    fn features(&self) -> u64 {
        let mut features = FEATURES;
        if !self.lanes.iter().all(|lane| lane.port.takes_offloads()) {
            features &= !feature::LEFT_UNDONE;
        }
        if self.lanes.len() > 1 {
            features |= feature::MQ;
        }
        if self.params.mtu.is_some() {
            features |= feature::MTU;
        }
        features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.config();
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(config.len());
        for (byte, value) in data.iter_mut().zip(&config[start..]) {
            *byte = *value;
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        self.start(activation)
    }

    fn halt(&mut self) -> Halted {
        let (mut queues, mut frames) = (Vec::new(), Vec::new());
        for worker in &mut self.workers {
            let (given, frame) = worker.take().map(Serving::give_back).unzip();
            queues.extend(given.into_iter().flatten());
            frames.push(frame.flatten());
        }
        let state = self.state(frames);
        Halted::new(queues, self.queue_sizes.len(), DeviceState::Net(state))
    }

    fn look(&self) -> (Vec<Option<QueueState>>, DeviceState) {
        let (mut queues, mut frames) = (Vec::new(), Vec::new());
        for worker in &self.workers {
            let (given, frame) = worker.look(Serving::look).unzip();
            queues.extend(given.into_iter().flatten());
            frames.push(frame.flatten());
        }
        let state = DeviceState::Net(self.state(frames));
        (places(queues, self.queue_sizes.len()), state)
    }

    fn limiters(&self) -> Vec<&RateLimiter> {
        vec![&self.shared.receive.limiter, &self.shared.transmit.limiter]
    }

    fn reset(&mut self) {
        for (index, lane) in self.lanes.iter().enumerate() {
            // What waits in the first port, such as a client's first packet, is for the next driver. A port
            // that cannot be switched off is still not read.
            if let Err(error) = lane.set_active(index == 0) {
                self.complain(format_args!("queue pair {index}: {error}"));
            }
            if let Err(error) = lane.port.set_offloads(Offloads::default()) {
                self.complain(format_args!("queue pair {index}: {error}"));
            }
        }
    }

    fn workers(&mut self) -> Vec<&mut dyn WorkerThread> {
        let each = |worker| worker as &mut dyn WorkerThread;
        self.workers.iter_mut().map(each).collect()
    }
}

#[cfg(test)]
mod tests;
