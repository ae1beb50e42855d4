//! Sockets between guest and host (virtio 1.2 §5.10): streams, each between a port of the guest and one of the host.
//!
//! The device opens nothing. Whoever has the host's sockets (the [`HostSide`]) hands it connected streams, and is asked for
//! one when the guest wants to be connected. What a stream has goes to guest memory and back by one vectored read or
//! write each, without a copy. A program that does not take what it is sent holds up nothing but its own connection.

mod backlog;
mod budget;
mod connection;
mod credit;
mod handle;
mod host_side;
mod packet;
mod switch;
mod table;
mod to_guest;
mod watch;
mod worker;

pub use budget::MOST_CONNECTIONS;
pub use handle::VsockHandle;
pub use host_side::{FromHost, HostSide, Question};

use super::{
    Activation, DeviceSpec, DeviceState, DeviceType, Halted, NoEvents, QueueState, VirtioDevice,
    Worker, WorkerThread, foreign_state, places,
};
use crate::thread::ThreadKind;
use handle::Shared;
use std::io;
use std::sync::Arc;
use watch::Watch;
use worker::QueueServer;

/// Entries of the queues for packets.
const QUEUE_SIZE: u16 = 256;
const EVENT_QUEUE_SIZE: u16 = 16;

/// Feature bits (§5.10.3).
mod feature {
    pub const STREAM: u64 = 1 << 0;
}

/// The front of a socket device.
pub struct VsockDevice {
    host: Arc<dyn HostSide>,
    watch: Watch,
    shared: Arc<Shared>,
    worker: Worker<QueueServer>,
}

/// A device for the guest with that address.
pub struct VsockSpec {
    /// The guest's address.
    pub guest_cid: u32,
    /// Who has the host's sockets.
    pub host: Arc<dyn HostSide>,
}

impl DeviceSpec for VsockSpec {
    type Device = VsockDevice;
    type Handle = VsockHandle;
    type Error = NoEvents;

    fn build(self) -> Result<(VsockDevice, VsockHandle), NoEvents> {
        let no_events = NoEvents::of("events for sockets between guest and host");
        let shared = Arc::new(Shared::new(self.guest_cid.into()).map_err(&no_events)?);
        let device = VsockDevice {
            host: self.host,
            watch: Watch::new().map_err(&no_events)?,
            shared: shared.clone(),
            worker: Worker::new("vsock", ThreadKind::Vsock).map_err(&no_events)?,
        };
        Ok((device, VsockHandle(shared)))
    }
}

impl VirtioDevice for VsockDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Socket
    }

    fn name(&self) -> &str {
        "vsock"
    }

    fn features(&self) -> u64 {
        feature::STREAM
    }

    /// §5.10.2: receive, transmit, events.
    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE, EVENT_QUEUE_SIZE]
    }

    /// §5.10.4: the guest's address, in 64 bits.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let cid = self.shared.guest_cid.to_le_bytes();
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| cid.get(offset..));
        for (to, from) in data.iter_mut().zip(rest.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let interrupt = activation.interrupt;
        let had_connections = match activation.state {
            None => false,
            Some(DeviceState::Vsock) => true,
            Some(_) => return Err(foreign_state()),
        };
        let _ = self.shared.interrupt.set(interrupt.clone());
        let server = QueueServer::new(
            activation.queues,
            had_connections,
            self.watch.clone(),
            self.host.clone(),
            self.shared.clone(),
        );
        self.worker.work(server, &interrupt)
    }

    fn halt(&mut self) -> Halted {
        let queues = self.worker.take().map(QueueServer::give_back);
        let count = self.queue_sizes().len();
        Halted::new(queues.into_iter().flatten(), count, DeviceState::Vsock)
    }

    fn look(&self) -> (Vec<Option<QueueState>>, DeviceState) {
        let queues = self.worker.look(QueueServer::look);
        let queues = queues.into_iter().flatten();
        (places(queues, self.queue_sizes().len()), DeviceState::Vsock)
    }

    /// Connections have ended with the worker's work.
    fn reset(&mut self) {}

    fn workers(&mut self) -> Vec<&mut dyn WorkerThread> {
        vec![&mut self.worker]
    }
}

#[cfg(test)]
mod tests;
