//! The transport with an entropy device behind it, driven by the rules and against them.

use super::registers::MAGIC;
use crate::config::RateLimit;
use crate::devices::Action;
use crate::devices::virtio::DeviceSpec;
use crate::devices::virtio::fake_driver::{BUFFERS, FakeDriver, INDIRECT, NEXT, WRITE};
use crate::devices::virtio::rng::{Rng, RngSpec};
use crate::devices::virtio::transport::{TRANSPORT_FEATURES, VERSION_1};

fn device() -> Box<Rng> {
    let (device, _) = RngSpec::limited(RateLimit::NONE).build().unwrap();
    Box::new(device)
}

fn driver() -> FakeDriver {
    FakeDriver::new(device())
}

fn ready() -> FakeDriver {
    FakeDriver::ready(device())
}

#[test]
fn it_identifies_itself() {
    let mut driver = driver();
    assert_eq!(driver.read(0), MAGIC);
    assert_eq!((driver.read(4), driver.read(8)), (2, 4));
    assert_eq!(driver.offered() & TRANSPORT_FEATURES, TRANSPORT_FEATURES);
    driver.write(0x30, 1);
    assert_eq!(driver.read(0x34), 0, "there is no queue 1");
    driver.write(0x30, 0);
    assert_eq!(driver.read(0x34), 64);
    assert_eq!(driver.read(0xb0), u32::MAX);
}

#[test]
fn requests_are_answered_with_an_interrupt() {
    let mut driver = ready();
    driver.send(0, &[(BUFFERS, 32, WRITE), (BUFFERS + 100, 8, WRITE)]);
    assert_eq!(driver.used(0), (0, 40));
    assert_ne!(driver.bytes(BUFFERS, 32), [0; 32]);
    assert_eq!(driver.bytes(BUFFERS + 32, 68), [0; 68]);
    while driver.read(0x60) & 1 == 0 {
        std::thread::yield_now();
    }
    assert!(driver.line.take() > 0);
    driver.write(0x64, 1);
    assert_eq!(driver.read(0x60), 0);
}

#[test]
fn indirect_chains_are_followed() {
    let mut driver = ready();
    // §2.7.5.3 wants no alignment of them.
    for table in [BUFFERS + 0x1000, BUFFERS + 0x2001] {
        driver.describe_at(table, 0, (BUFFERS, 4, WRITE | NEXT, 1));
        driver.describe_at(table, 1, (BUFFERS + 8, 4, WRITE, 0));
        driver.describe(0, 3, (table, 32, INDIRECT, 0));
        driver.offer(0, 3);
        assert_eq!(driver.used(0), (3, 8));
    }
}

#[test]
fn status_bits_come_in_order() {
    let mut driver = driver();
    for early in [2, 4, 8, 14] {
        driver.write(0x70, early);
        assert_eq!(driver.read(0x70), 0, "{early}");
    }
    driver.write(0x70, 1);
    driver.write(0x70, 5);
    assert_eq!(driver.read(0x70), 1);
    driver.write(0x70, 3);
    driver.write(0x70, 1);
    assert_eq!(driver.read(0x70), 3, "bits are taken away by a reset only");
    driver.write(0x70, 0x83);
    driver.write(0x70, 0x8b);
    assert_eq!(driver.read(0x70), 0x83, "a driver that gave up must reset");
    driver.write(0x70, 0);
    assert_eq!(driver.read(0x70), 0);
    driver.write(0x70, 15);
    assert_eq!(
        driver.read(0x70),
        3,
        "several at once, as far as they are granted"
    );
}

#[test]
fn features_must_be_offered_and_modern() {
    let mut driver = driver();
    assert!(!driver.negotiate(!VERSION_1), "legacy drivers are refused");
    driver.write(0x70, 0);
    driver.write(0x70, 1);
    driver.write(0x70, 3);
    driver.write(0x24, 1);
    driver.write(0x20, 1 | 1 << 20);
    driver.write(0x70, 11);
    assert_eq!(driver.read(0x70), 3, "a bit that was not offered");
    driver.write(0x70, 0);
    assert!(driver.negotiate(u64::MAX));
}

/// Sets the queue up wrongly in one register and expects the device to refuse.
fn refuses(register: u64, value: u32) {
    let mut driver = driver();
    assert!(driver.negotiate(u64::MAX));
    driver.set_up_queue(0);
    driver.write(0x44, 0);
    driver.write(register, value);
    driver.write(0x44, 1);
    driver.write(0x70, 15);
    assert!(driver.needs_reset(), "{register:#x} = {value:#x}");
    driver.write(0x70, 0);
    assert_eq!(driver.read(0x70), 0, "a reset makes it whole again");
}

#[test]
fn queues_must_make_sense() {
    for size in [0, 3, 128, 0x1_0000, u32::MAX] {
        refuses(0x38, size);
    }
    for (register, misaligned) in [(0x80, 0x1_0008), (0x90, 0x1_4001), (0xa0, 0x1_8002)] {
        refuses(register, misaligned);
        refuses(register, 0xffff_fff0);
        refuses(register + 4, u32::MAX);
    }
}

#[test]
fn a_live_queue_cannot_be_moved() {
    let mut driver = ready();
    driver.write(0x80, 0x7000);
    driver.write(0x38, 8);
    driver.write(0x44, 1);
    driver.send(0, &[(BUFFERS, 4, WRITE)]);
    assert_eq!(driver.used(0), (0, 4));
}

#[test]
fn a_queue_that_is_not_ready_any_more_is_not_served() {
    let mut driver = ready();
    driver.write(0x44, 0);
    assert_eq!(driver.read(0x44), 0);
    // The worker is gone when the write returns, so nothing can answer.
    driver.send(0, &[(BUFFERS, 4, WRITE)]);
    assert_eq!(driver.poll_used(0), None);
    driver.write(0x44, 1);
    assert_eq!(driver.read(0x44), 0, "only a reset brings it back");
}

#[test]
fn malformed_chains_need_a_reset() {
    type Breakage = fn(&mut FakeDriver);
    let breakages: [(&str, Breakage); 9] = [
        ("a loop", |d| {
            d.describe(0, 0, (BUFFERS, 4, WRITE | NEXT, 1));
            d.describe(0, 1, (BUFFERS, 4, WRITE | NEXT, 0));
            d.offer(0, 0);
        }),
        ("an address outside RAM", |d| {
            d.send(0, &[(1 << 40, 4, WRITE)])
        }),
        ("an address that wraps", |d| {
            d.send(0, &[(u64::MAX - 1, 4, WRITE)])
        }),
        ("a buffer that leaves RAM", |d| {
            d.send(0, &[((8 << 20) - 4, 8, WRITE)])
        }),
        ("read behind write", |d| {
            d.send(0, &[(BUFFERS, 4, WRITE), (BUFFERS, 4, 0)])
        }),
        ("a next outside the table", |d| {
            d.describe(0, 0, (BUFFERS, 4, WRITE | NEXT, 999));
            d.offer(0, 0);
        }),
        ("indirect within indirect", |d| {
            d.describe_at(BUFFERS, 0, (BUFFERS + 64, 16, INDIRECT, 0));
            d.describe(0, 0, (BUFFERS, 16, INDIRECT, 0));
            d.offer(0, 0);
        }),
        ("a head outside the table", |d| d.offer(0, 500)),
        ("an index too far ahead", |d| {
            d.set_avail_index(0, 1000);
            d.write(0x50, 0);
        }),
    ];
    for (name, breakage) in breakages {
        let mut driver = ready();
        breakage(&mut driver);
        driver.expect_needs_reset();
        // After a reset the device works again.
        driver.write(0x70, 0);
        assert_eq!(driver.read(0x70), 0, "{name}");
    }
}

#[test]
fn a_chain_may_be_as_long_as_the_queue_could_be() {
    let mut driver = ready();
    let mut offer = |length: u16| {
        for index in 0..length {
            let flags = WRITE | if index + 1 < length { NEXT } else { 0 };
            driver.describe_at(BUFFERS, index, (BUFFERS + 0x1000, 1, flags, index + 1));
        }
        driver.describe(0, 0, (BUFFERS, u32::from(length) * 16, INDIRECT, 0));
        driver.offer(0, 0);
        driver.poll(0)
    };
    // The driver has chosen 16 entries of 64, which an indirect table need not keep to.
    assert_eq!(offer(64), Some((0, 64)));
    assert_eq!(offer(65), None);
}

#[test]
fn indices_wrap_around() {
    let mut driver = ready();
    for _ in 0..70_000u32 / 50 {
        for _ in 0..50 {
            driver.send(0, &[(BUFFERS, 1, WRITE)]);
            assert_eq!(driver.used(0), (0, 1));
        }
    }
}

#[test]
fn odd_accesses_read_as_zero_and_change_nothing() {
    let mut driver = driver();
    for (offset, bytes) in [
        (0, 1),
        (0, 2),
        (0, 8),
        (1, 4),
        (2, 4),
        (0xffc, 4),
        (0xfff, 1),
    ] {
        let mut data = vec![0xff; bytes];
        driver.transport.read(offset, &mut data);
        assert!(data.iter().all(|byte| *byte == 0), "{offset:#x}");
        assert_eq!(driver.transport.write(offset, &data), Action::None);
    }
    let _ = driver.transport.write(0x70, &[1]);
    assert_eq!(driver.read(0x70), 0);
}
