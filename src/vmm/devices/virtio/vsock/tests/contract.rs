//! What every device keeps to, in both directions.

use super::*;
use crate::devices::virtio::contract::{Subject, contract_tests, place};

/// Packets from the guest, about connections that there are not; none wants an answer.
struct Sending(Bench);

/// Refusals to the guest.
struct Receiving(Bench);

impl Subject for Sending {
    const QUEUE: usize = TX;
    const DESCRIPTORS: u16 = 1;

    fn ready() -> Self {
        Self(Bench::without_buffers())
    }

    fn driver(&mut self) -> &mut FakeDriver {
        &mut self.0.driver
    }

    fn describe(&mut self, number: u16, head: u16) {
        let header = Guest::new(number.into(), 1).header(Operation::Reset);
        let bytes = header.to_bytes().unwrap();
        let descriptor = (place(number), bytes.len() as u32, 0, 0);
        self.0.driver.put(place(number), &bytes);
        self.0.driver.describe(TX, head, descriptor);
    }

    fn check(&mut self, _: u16, written: u32) {
        assert_eq!(written, 0);
        assert_eq!(self.0.handle.stats().refused, 0);
    }
}

impl Subject for Receiving {
    const QUEUE: usize = RX;
    const DESCRIPTORS: u16 = 1;

    fn ready() -> Self {
        Self(Bench::without_buffers())
    }

    fn driver(&mut self) -> &mut FakeDriver {
        &mut self.0.driver
    }

    fn describe(&mut self, number: u16, head: u16) {
        let descriptor = (place(number), RX_BYTES, WRITE, 0);
        self.0.driver.describe(RX, head, descriptor);
    }

    fn prompt(&mut self, requests: u16) {
        for number in 0..requests {
            let guest = Guest::new(number.into(), 1);
            self.0.send(guest.header(Operation::Data), &[]);
        }
    }

    fn provoke(&mut self) {
        let bytes = Guest::new(1, 1).header(Operation::Data).to_bytes().unwrap();
        self.0.driver.put(TX_AT, &bytes);
        let packet = (TX_AT, bytes.len() as u32, 0);
        self.0.driver.send(TX, &[packet]);
    }

    fn check(&mut self, number: u16, written: u32) {
        assert_eq!(written as usize, HEADER_BYTES);
        let bytes = self.0.driver.bytes(place(number), HEADER_BYTES);
        let header = Header::parse(bytes[..].try_into().unwrap()).unwrap();
        assert_eq!(header.operation, Operation::Reset as u16);
        assert_eq!((header.src_port, header.dst_port), (1, number.into()));
    }
}

contract_tests!(sending, super::Sending);
contract_tests!(receiving, super::Receiving);
