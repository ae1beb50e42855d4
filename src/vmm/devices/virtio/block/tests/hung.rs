//! A medium that does not answer: whoever ends the disk does not wait for it.

use super::*;
use crate::devices::virtio::{PATIENCE, Patience};
use kvmlet_sys::event::Event;
use std::time::{Duration, Instant};

/// On a busy machine, beside what is waited for.
const BUSY: Duration = Duration::from_millis(500);
const NEEDS_RESET: u32 = 64;

fn hung_rig() -> (Rig, Arc<Event>) {
    let hold = Arc::new(Event::new().unwrap());
    let mut medium = MemoryMedium::new(pattern());
    medium.hold = Some(hold.clone());
    medium.hangs = true;
    let disk = Disk::read_write("memory");
    let rig = Rig::in_memory(&medium, RateLimiter::new(disk.rate_limit), &disk, !0);
    (rig, hold)
}

/// Sends a request and waits until the medium has it.
fn ask(rig: &mut Rig, kind: u32) {
    let data = if kind == OUT { &[0x55; 512][..] } else { &[] };
    rig.send(kind, 0, data, if kind == IN { 512 } else { 0 });
    while rig.handle.stats().notifications == 0 {
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_millis(10));
}

fn soon<T>(act: impl FnOnce() -> T) -> T {
    let since = Instant::now();
    let done = act();
    assert!(since.elapsed() < PATIENCE + BUSY, "{:?}", since.elapsed());
    done
}

#[test]
fn a_reset_does_not_wait_and_is_seen_to_end() {
    let (mut rig, hold) = hung_rig();
    ask(&mut rig, IN);
    soon(|| rig.driver.write(0x70, 0));
    // It can be asked for again, and nothing else: the device takes nothing before.
    soon(|| rig.driver.write(0x70, 0));
    assert_eq!(rig.driver.read(0x70), NEEDS_RESET);
    assert!(!rig.driver.negotiate(!0));
    assert_eq!(rig.driver.read(0x70), NEEDS_RESET);
    assert_eq!(
        (rig.driver.read(0x60), rig.handle.stats().interrupts),
        (0, 0)
    );
    hold.signal();
    while rig.driver.read(0x70) != 0 {
        std::thread::yield_now();
    }
    // What was asked for before the reset is not answered after it.
    assert_eq!(rig.driver.poll_used(0), None);
    assert_eq!(
        (rig.driver.read(0x60), rig.handle.stats().interrupts),
        (0, 0)
    );
    rig.driver.forget_queues();
    rig.driver.start(!(1 << 29));
    assert_eq!(rig.read(0, 1), pattern()[..SECTOR]);
}

#[test]
fn a_queue_is_taken_away_when_the_medium_has_let_go_of_it() {
    let (mut rig, hold) = hung_rig();
    ask(&mut rig, IN);
    rig.driver.write(0x30, 0);
    soon(|| rig.driver.write(0x44, 0));
    assert_eq!(rig.driver.read(0x44), 1);
    hold.signal();
    while rig.driver.read(0x44) != 0 {
        std::thread::yield_now();
    }
}

#[test]
fn the_end_does_not_wait() {
    let (mut rig, hold) = hung_rig();
    ask(&mut rig, IN);
    soon(|| drop(rig));
    // What the medium may still write to stays: a job, with the memory that it holds.
    assert!(Arc::strong_count(&hold) > 1);
    hold.signal();
    while Arc::strong_count(&hold) > 1 {
        std::thread::yield_now();
    }
}

/// To stand still is to change nothing in guest memory: reads are waited for, writes are not.
#[test]
fn it_stands_still_when_nothing_can_write_to_memory() {
    for (kind, is_still) in [(IN, false), (OUT, true), (FLUSH, true)] {
        let (mut rig, hold) = hung_rig();
        ask(&mut rig, kind);
        rig.driver.transport.session().pause();
        // A read is given up by what the host takes, long before the whole time is over.
        let patience = Patience {
            until: Instant::now() + 10 * BUSY,
            host: PATIENCE,
        };
        let since = Instant::now();
        assert_eq!(
            rig.driver.transport.session().is_still(patience),
            is_still,
            "{kind}"
        );
        assert!(since.elapsed() < PATIENCE + BUSY, "{kind}");
        if is_still {
            hold.signal();
            std::thread::sleep(Duration::from_millis(10));
            assert_eq!(rig.driver.poll_used(0), None);
        }
        rig.driver.transport.session().resume();
        hold.signal();
        rig.driver.used(0);
    }
}

/// To sleep is to have nothing in flight: writes are waited for as well, and a disk that cannot goes on.
#[test]
fn it_sleeps_when_nothing_is_in_flight() {
    for kind in [IN, OUT, FLUSH] {
        let (mut rig, hold) = hung_rig();
        ask(&mut rig, kind);
        let session = rig.driver.transport.session();
        assert!(!soon(|| session.sleep(Instant::now() + PATIENCE)), "{kind}");
        hold.signal();
        rig.driver.used(0);
        let session = rig.driver.transport.session();
        assert!(session.sleep(Instant::now() + 10 * BUSY), "{kind}");
        session.wake();
        assert!(!rig.driver.needs_reset());
    }
}
