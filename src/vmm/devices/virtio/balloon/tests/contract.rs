//! What every device keeps to, with pages for the balloon.

use super::*;
use crate::devices::virtio::contract::{Subject, contract_tests, place};

struct Inflations(Rig);

fn pages(number: u16) -> std::ops::Range<u32> {
    let first = FIRST + 8 * u32::from(number);
    first..first + 8
}

impl Subject for Inflations {
    const QUEUE: usize = INFLATE;
    const DESCRIPTORS: u16 = 1;

    fn ready() -> Self {
        Self(Rig::ready("4M"))
    }

    fn driver(&mut self) -> &mut FakeDriver {
        &mut self.0.driver
    }

    fn describe(&mut self, number: u16, head: u16) {
        self.0.touch(pages(number));
        let list: Vec<u8> = pages(number).flat_map(u32::to_le_bytes).collect();
        self.0.driver.put(place(number), &list);
        let descriptor = (place(number), list.len() as u32, 0, 0);
        self.0.driver.describe(INFLATE, head, descriptor);
    }

    fn check(&mut self, number: u16, written: u32) {
        assert_eq!(written, 0);
        assert_eq!(self.0.kept(pages(number)), GONE);
    }
}

contract_tests!(inflations, super::Inflations);

/// The buffer of statistics is the device's, and the balloon the guest's, beyond a sleep.
#[test]
fn what_is_held_outlives_a_sleep() {
    let mut rig = Rig::ready("4M");
    rig.driver.put(BUFFERS, &[0; 10]);
    rig.driver.send(STATISTICS, &[(BUFFERS, 10, 0)]);
    let mut session = rig.driver.transport.session();
    session.device().write_config(4, &7u32.to_le_bytes());
    eventually("the first statistics", || {
        rig.handle.stats().guest.is_some()
    });
    session = rig.driver.transport.session();
    assert!(session.sleep(Instant::now() + DEADLINE));
    let state = BalloonState {
        actual_pages: 7,
        held: Some(0),
    };
    assert_eq!(session.halted().unwrap().state, DeviceState::Balloon(state));
    assert!(matches!(
        rig.handle.ask_guest(PATIENCE),
        Err(Error::NoDriver)
    ));
    session.wake();
    assert_eq!(rig.handle.actual().bytes(), 7 * PAGE);
    // It is handed back when somebody asks.
    let asked = std::thread::scope(|scope| {
        let handle = rig.handle.clone();
        let asking = scope.spawn(move || handle.ask_guest(PATIENCE));
        assert_eq!(rig.driver.used(STATISTICS), (0, 0));
        rig.driver.send(STATISTICS, &[(BUFFERS, 10, 0)]);
        asking.join().unwrap()
    });
    assert!(asked.is_ok());
}
