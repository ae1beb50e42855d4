//! Packets to the guest, in the buffers of its receive queue.
//!
//! Data are read from a stream right into guest memory. A read fills several buffers: Linux gives pages.

use super::connection::{Connection, MOST_BUFFERS, Read, portion};
use super::packet::{HEADER_BYTES, Header, Operation};
use crate::devices::virtio::iovecs::{Iovecs, Spare};
use crate::devices::virtio::{Broken, Chain, Virtqueue};
use std::time::Instant;

/// The receive queue.
pub(super) struct ToGuest {
    queue: Virtqueue,
    /// The first of them were taken from the queue and have nothing in them yet.
    chains: Vec<Chain>,
    taken: usize,
    spare: Spare,
}

impl ToGuest {
    pub fn new(queue: Virtqueue) -> Self {
        Self {
            queue,
            chains: vec![Chain::default(); MOST_BUFFERS],
            taken: 0,
            spare: Spare::default(),
        }
    }

    pub fn queue(&mut self) -> &mut Virtqueue {
        &mut self.queue
    }

    pub fn looked_at(&self) -> &Virtqueue {
        &self.queue
    }

    pub fn into_queue(self) -> Virtqueue {
        self.queue
    }

    /// Takes up to that many buffers; false if there is none.
    pub fn take(&mut self, most: usize) -> Result<bool, Broken> {
        for chain in &mut self.chains[..most.min(MOST_BUFFERS)] {
            if !self.queue.pop(chain)? {
                break;
            }
            if !chain.readable().is_empty() {
                return Err(Broken::Request("a receive buffer is readable"));
            }
            if chain.writable_bytes() < HEADER_BYTES as u64 {
                return Err(Broken::Request(
                    "a receive buffer is shorter than a packet's header",
                ));
            }
            self.taken += 1;
        }
        Ok(self.taken > 0)
    }

    /// Fills one of the buffers that were taken.
    pub fn put(&mut self, header: Header) -> Result<(), Broken> {
        let chain = &self.chains[0];
        chain.write(self.queue.memory(), 0, &header.to_bytes()?)?;
        let head = chain.head();
        self.give_back(1);
        self.queue.push(head, HEADER_BYTES as u32);
        Ok(())
    }

    /// Fills those that were taken with what a stream has, and no more than that many bytes; returns how many packets and
    /// bytes it was.
    pub fn put_data(
        &mut self,
        connection: &mut Connection,
        limit: usize,
        guest_cid: u64,
        now: Instant,
    ) -> Result<(usize, usize), Broken> {
        let memory = self.queue.memory();
        let mut iovecs = Iovecs::reusing(&mut self.spare);
        for chain in &self.chains[..self.taken] {
            let room = portion(chain.writable_bytes()).min(limit - iovecs.bytes());
            let parts = chain.writable_parts(HEADER_BYTES as u64, room as u64);
            iovecs.push_guest(memory, parts)?;
        }
        if iovecs.bytes() == 0 {
            return Err(Broken::Request("a receive buffer has no room for data"));
        }
        let read = connection.read(&iovecs);
        iovecs.put_back(&mut self.spare);
        let Read::Bytes(bytes) = read else {
            self.give_back(0);
            return Ok((0, 0));
        };
        let (mut left, mut used) = (bytes, 0);
        while left > 0 && used < self.taken {
            let chain = &self.chains[used];
            let data = portion(chain.writable_bytes()).min(left);
            // A buffer without room has a packet, too.
            let operation = match data {
                0 => Operation::CreditUpdate,
                _ => Operation::Data,
            };
            let header = connection.tell(operation, data, guest_cid, now);
            chain.write(self.queue.memory(), 0, &header.to_bytes()?)?;
            let written = (HEADER_BYTES + data) as u32;
            self.queue.push(chain.head(), written);
            (left, used) = (left - data, used + 1);
        }
        self.give_back(used);
        Ok((used, bytes))
    }

    /// Puts back what was taken and not used.
    fn give_back(&mut self, used: usize) {
        (used..self.taken).for_each(|_| self.queue.unpop());
        self.taken = 0;
    }
}
