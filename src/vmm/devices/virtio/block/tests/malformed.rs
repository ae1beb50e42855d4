//! What a driver must not send. Errors are answered; only what has no place for an answer breaks the device.

use super::*;
use crate::devices::virtio::fake_driver::{INDIRECT, NEXT};
use kvmlet_sys::event::Event;
use proptest::prelude::*;
use std::time::{Duration, Instant};

#[test]
fn bad_sectors_and_sizes_are_answered_with_an_error() {
    for mut rig in Rig::each(|_| ()) {
        for sector in [
            DISK_SECTORS,
            DISK_SECTORS - 1,
            1 << 55,
            u64::MAX / 512 + 1,
            u64::MAX,
        ] {
            let (status, written, data) = rig.request(IN, sector, &[], 1024);
            assert_eq!((status, written), (IOERR, 0), "{sector}");
            assert_eq!(data, [0xee; 1024], "a failed read wrote");
            assert_eq!(rig.status(OUT, sector, &[1; 1024], 0), IOERR);
        }
        for bytes in [1, 511, 513] {
            assert_eq!(rig.status(IN, 0, &[], bytes), IOERR);
            assert_eq!(rig.status(OUT, 0, &vec![1; bytes as usize], 0), IOERR);
        }
        assert_eq!(rig.handle.stats().errors, 16);
        assert_eq!(rig.read(0, 2048), pattern());
    }
}

#[test]
fn unknown_requests_are_unsupported() {
    for mut rig in Rig::each(|_| ()) {
        for kind in [2, 3, 5, 7, 9, 10, 12, 14, 15, 0x8000_0000, u32::MAX] {
            assert_eq!(rig.status(kind, 0, &[], 512), UNSUPP, "{kind}");
        }
        assert_eq!(rig.status(GET_ID, 0, &[], 19), IOERR);
        assert!(!rig.driver.needs_reset());
    }
}

#[test]
fn ranges_are_checked() {
    for mut rig in Rig::each(|_| ()) {
        for (kind, sector, sectors, flags, status) in [
            (DISCARD, DISK_SECTORS, 1, 0, IOERR),
            (DISCARD, u64::MAX, 1, 0, IOERR),
            (DISCARD, 1 << 54, 1, 0, IOERR),
            (DISCARD, 0, u32::MAX, 0, IOERR),
            (DISCARD, 0, 1, 1, UNSUPP),
            (DISCARD, 0, 1, 2, UNSUPP),
            (WRITE_ZEROES, 0, layout::ZERO_SECTORS + 1, 0, IOERR),
            (WRITE_ZEROES, DISK_SECTORS - 1, 2, 1, IOERR),
            (WRITE_ZEROES, 0, 1, 2, UNSUPP),
            (WRITE_ZEROES, 0, 1, u32::MAX, UNSUPP),
        ] {
            assert_eq!(
                rig.ranged(kind, sector, sectors, flags),
                status,
                "{kind} {sector} {sectors} {flags}"
            );
        }
        for kind in [DISCARD, WRITE_ZEROES] {
            let two = [range(0, 1, 0), range(8, 1, 0)].concat();
            assert_eq!(rig.status(kind, 0, &two, 0), IOERR);
            assert_eq!(rig.status(kind, 0, &two[..15], 0), IOERR);
            assert_eq!(rig.status(kind, 0, &[], 0), IOERR);
        }
        assert_eq!(rig.read(0, 2048), pattern());
    }
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    for mut rig in Rig::each(|disk| disk.read_only = true) {
        assert_eq!(rig.status(OUT, 0, &[1; 512], 0), IOERR);
        assert_eq!(rig.ranged(DISCARD, 0, 8, 0), IOERR);
        assert_eq!(rig.ranged(WRITE_ZEROES, 0, 8, 1), IOERR);
        assert_eq!(rig.status(FLUSH, 0, &[], 0), OK);
        assert_eq!(rig.read(0, 2048), pattern());
    }
}

#[test]
fn without_a_place_for_the_answer_the_device_needs_a_reset() {
    type Buffers = &'static [(u64, u32, u16)];
    let requests: [(&str, Buffers); 7] = [
        ("nothing", &[(HEADER, 0, 0)]),
        ("short header", &[(HEADER, 15, 0), (INCOMING, 513, WRITE)]),
        ("no header", &[(INCOMING, 513, WRITE)]),
        ("no status", &[(HEADER, 16, 0)]),
        ("empty status", &[(HEADER, 16, 0), (INCOMING, 0, WRITE)]),
        (
            "data outside",
            &[(HEADER, 16, 0), (1 << 40, 512, WRITE), (INCOMING, 1, WRITE)],
        ),
        (
            "status outside",
            &[(HEADER, 16, 0), (INCOMING, 512, WRITE), (8 << 20, 1, WRITE)],
        ),
    ];
    for (what, buffers) in requests {
        for mut rig in Rig::each(|_| ()) {
            rig.header(IN, 0);
            rig.driver.send(0, buffers);
            rig.driver.expect_needs_reset();
            assert_eq!(rig.driver.poll_used(0), None, "{what}");
            // After the reset it serves again.
            rig.driver.reset();
            rig.driver.start(!(1 << 29));
            assert_eq!(rig.read(0, 1), pattern()[..512], "{what}");
        }
    }
}

/// A driver that offers requests anew before they are answered.
#[test]
fn no_more_is_in_flight_than_the_queue_has_entries() {
    let hold = Arc::new(Event::new().unwrap());
    let mut medium = MemoryMedium::new(pattern());
    medium.hold = Some(hold.clone());
    let disk = Disk::read_write("memory");
    let mut rig = Rig::in_memory(&medium, RateLimiter::new(disk.rate_limit), &disk, !0);
    rig.header(FLUSH, 0);
    rig.driver.describe(0, 0, (HEADER, 16, NEXT, 1));
    rig.driver.describe(0, 1, (INCOMING, 1, WRITE, 0));
    rig.driver.offer_all(0, &[0; 16]);
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut started = 0;
    while started < 16 {
        started += medium.log().len();
        assert!(Instant::now() < deadline, "only {started} were started");
        std::thread::yield_now();
    }
    rig.driver.offer_all(0, &[0; 16]);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((started, medium.log().len()), (16, 0));
    hold.signal();
    for _ in 0..32 {
        assert_eq!(rig.driver.used(0), (0, 1));
    }
    assert_eq!(rig.handle.stats().flushes, 32);
}

/// A descriptor of a random request: mostly sensible places, sizes around the interesting ones.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16)> {
    let address = prop_oneof![4 => Just(HEADER), 2 => Just(INCOMING), 1 => any::<u64>()];
    let bytes = prop_oneof![
        Just(16),
        Just(1),
        Just(512),
        Just(0),
        0..2000u32,
        any::<u32>()
    ];
    (address, bytes, 0..8u16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever comes, the device answers or asks for a reset, and after the reset works.
    #[test]
    fn random_requests_do_no_harm(
        header in (0..16u32, any::<u64>()),
        raw in prop::collection::vec(any::<u8>(), 64),
        descriptors in prop::collection::vec(descriptor(), 1..6),
    ) {
        let medium = MemoryMedium::new(pattern());
        let disk = Disk::read_write("memory");
        let mut rig = Rig::in_memory(&medium, RateLimiter::new(disk.rate_limit), &disk, !0);
        rig.driver.put(HEADER, &raw);
        rig.header(header.0, header.1 % 4096);
        for (index, (address, bytes, flags)) in (0u16..).zip(&descriptors) {
            let last = usize::from(index) + 1 == descriptors.len();
            let next = if last { 0 } else { NEXT };
            let flags = flags & (WRITE | INDIRECT) | next;
            rig.driver.describe(0, index, (*address, *bytes, flags, index + 1));
        }
        rig.driver.offer(0, 0);
        while rig.driver.poll_used(0).is_none() && !rig.driver.needs_reset() {
            std::thread::yield_now();
        }
        rig.driver.reset();
        rig.driver.start(!(1 << 29));
        prop_assert_eq!(rig.status(FLUSH, 0, &[], 0), OK);
    }
}
