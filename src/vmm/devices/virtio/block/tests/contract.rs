//! What every device keeps to: reads by each back end that there is, and writes.

use super::*;
use crate::devices::virtio::contract::{Subject, contract_tests, place};
use crate::devices::virtio::fake_driver::NEXT;

/// Reads of a sector each, where it is `PLAIN` without io_uring, of a file or of `RANGES` of one.
struct Reads<const PLAIN: bool, const RANGES: bool = false>(Rig);

/// Writes of a sector each.
struct Writes(Rig);

const DATA: u64 = 0x1000;
const STATUS: u64 = 0x2000;

/// A request of three descriptors from `head` on.
fn describe(rig: &mut Rig, kind: u32, number: u16, head: u16) {
    let (at, driver) = (place(number), &mut rig.driver);
    driver.put(at, &kind.to_le_bytes());
    driver.put(at + 4, &[0; 4]);
    driver.put(at + 8, &u64::from(number).to_le_bytes());
    driver.put(at + STATUS, &[0xee]);
    let direction = if kind == IN { WRITE } else { 0 };
    let data = (at + DATA, SECTOR as u32, direction | NEXT, head + 2);
    driver.describe(0, head, (at, 16, NEXT, head + 1));
    driver.describe(0, head + 1, data);
    driver.describe(0, head + 2, (at + STATUS, 1, WRITE, 0));
}

fn sector(number: u16) -> Vec<u8> {
    let start = usize::from(number) * SECTOR;
    pattern()[start..start + SECTOR].to_vec()
}

impl<const PLAIN: bool, const RANGES: bool> Subject for Reads<PLAIN, RANGES> {
    const QUEUE: usize = 0;
    const DESCRIPTORS: u16 = 3;

    fn ready() -> Self {
        let io = if PLAIN { DiskIo::Sync } else { DiskIo::Auto };
        Self(match RANGES {
            true => Rig::on_extents(|disk| disk.io = io),
            false => Rig::on_file(|disk| disk.io = io),
        })
    }

    fn driver(&mut self) -> &mut FakeDriver {
        &mut self.0.driver
    }

    fn describe(&mut self, number: u16, head: u16) {
        self.0.driver.put(place(number) + DATA, &[0xee; SECTOR]);
        describe(&mut self.0, IN, number, head);
    }

    fn check(&mut self, number: u16, written: u32) {
        let (at, driver) = (place(number), &self.0.driver);
        assert_eq!((written, driver.bytes(at + STATUS, 1)), (513, vec![OK]));
        assert_eq!(driver.bytes(at + DATA, SECTOR), sector(number));
    }
}

impl Subject for Writes {
    const QUEUE: usize = 0;
    const DESCRIPTORS: u16 = 3;

    fn ready() -> Self {
        Self(Rig::on_file(|_| ()))
    }

    fn driver(&mut self) -> &mut FakeDriver {
        &mut self.0.driver
    }

    fn describe(&mut self, number: u16, head: u16) {
        let data: Vec<u8> = sector(number).iter().map(|byte| !byte).collect();
        self.0.driver.put(place(number) + DATA, &data);
        describe(&mut self.0, OUT, number, head);
    }

    fn check(&mut self, number: u16, written: u32) {
        let status = self.0.driver.bytes(place(number) + STATUS, 1);
        assert_eq!((written, status), (1, vec![OK]));
        let mut data = [0; SECTOR];
        let at = u64::from(number) * SECTOR as u64;
        std::os::unix::fs::FileExt::read_exact_at(self.0.file(), &mut data, at).unwrap();
        assert_eq!(data.map(|byte| !byte).as_slice(), sector(number));
    }
}

contract_tests!(reads, super::Reads<false>);
contract_tests!(plain_reads, super::Reads<true>);
contract_tests!(reads_of_ranges, super::Reads<false, true>);
contract_tests!(plain_reads_of_ranges, super::Reads<true, true>);
contract_tests!(writes, super::Writes);

/// A sleeper remembers what its driver has made of the cache.
#[test]
fn the_choice_of_a_cache_outlives_a_sleep() {
    let mut rig = Rig::on_file(|_| ());
    let session = rig.driver.transport.session();
    session.device().write_config(32, &[0]);
    assert!(session.sleep(std::time::Instant::now() + std::time::Duration::from_secs(10)));
    let halted = session.halted().unwrap();
    let off = BlockState { writeback: false };
    assert_eq!(halted.state, DeviceState::Block(off));
    session.wake();
    assert_eq!(rig.driver.config(32, 1), [0]);
    rig.driver.reset();
    assert_eq!(rig.driver.config(32, 1), [1]);
}
