//! Rate limits, locks, resizing.

use super::*;
use crate::config::{Rate, RateLimit, Remedy};
use std::time::{Duration, Instant};

/// Waits until the device has said so often that it must wait.
fn expect_throttled(rig: &Rig, events: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while rig.handle.stats().throttled < events {
        assert!(Instant::now() < deadline, "never throttled");
        std::thread::yield_now();
    }
}

fn limited(limit: RateLimit) -> (Rig, RateLimiter, TestClock) {
    let clock = TestClock::default();
    let limiter = RateLimiter::with_clock(limit, clock.clone());
    let (medium, disk) = (MemoryMedium::new(pattern()), Disk::read_write("memory"));
    (
        Rig::in_memory(&medium, limiter.clone(), &disk, !0),
        limiter,
        clock,
    )
}

#[test]
fn operations_wait_for_their_time() {
    let rate = Rate::per_second(10).unwrap().burst(2);
    let (mut rig, limiter, clock) = limited(RateLimit {
        operations: Some(rate),
        ..RateLimit::NONE
    });
    rig.read(0, 1);
    assert_eq!(rig.status(FLUSH, 0, &[], 0), OK);
    for round in 1..=3 {
        rig.send(IN, round, &[], 512);
        expect_throttled(&rig, round);
        assert_eq!(rig.driver.poll_used(0), None);
        clock.advance(Duration::from_millis(100));
        limiter.wake();
        let (status, _, data) = rig.answer(512);
        let start = round as usize * 512;
        assert_eq!((status, &data[..]), (OK, &pattern()[start..start + 512]));
    }
    // What takes the host's time has its price, whether or not the disk is read or written.
    for (events, (kind, sector, room)) in (4..).zip([(GET_ID, 0, 20), (IN, DISK_SECTORS, 512)]) {
        rig.send(kind, sector, &[], room);
        expect_throttled(&rig, events);
        assert_eq!(rig.driver.poll_used(0), None);
        clock.advance(Duration::from_millis(100));
        limiter.wake();
        rig.answer(room);
    }
    let stats = rig.handle.stats();
    assert_eq!((stats.throttled, stats.throttled_us), (5, 500_000));
}

#[test]
fn bytes_wait_for_their_time_and_a_change_frees_them() {
    let rate = Rate::per_second(4096).unwrap().burst(4096);
    let (mut rig, _, _clock) = limited(RateLimit {
        bandwidth: Some(rate),
        ..RateLimit::NONE
    });
    // Far more than the burst, on credit.
    rig.read(0, 2048);
    rig.send(OUT, 0, &[7; 512], 0);
    expect_throttled(&rig, 1);
    assert_eq!(rig.driver.poll_used(0), None);
    rig.handle.set_rate_limit(RateLimit::NONE);
    assert_eq!(rig.answer(0).0, OK);
    assert_eq!(rig.read(0, 1), [7; 512]);
}

#[test]
fn zeroes_and_discards_count_as_bytes_written() {
    let rate = Rate::per_second(4096).unwrap().burst(4096);
    for kind in [DISCARD, WRITE_ZEROES] {
        let (mut rig, limiter, clock) = limited(RateLimit {
            bandwidth: Some(rate),
            ..RateLimit::NONE
        });
        assert_eq!(rig.ranged(kind, 0, 24, 0), OK);
        // 12 KiB were taken and 4 KiB were there: the next one waits for the other two seconds.
        rig.send(OUT, 0, &[7; 512], 0);
        expect_throttled(&rig, 1);
        clock.advance(Duration::from_millis(1990));
        limiter.wake();
        assert_eq!(rig.driver.poll_used(0), None);
        clock.advance(Duration::from_millis(20));
        limiter.wake();
        assert_eq!(rig.answer(0).0, OK);
    }
}

/// Requests that are answered where they are taken, without end: here the driver adds one for each answer.
#[test]
fn a_flood_of_errors_does_not_keep_a_disk_from_its_reset() {
    let (mut rig, _, _clock) = limited(RateLimit::NONE);
    rig.header(99, 0);
    for _ in 0..16 {
        rig.driver.send(0, &[(HEADER, 16, 0), (INCOMING, 1, WRITE)]);
        rig.driver.used(0);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flood = {
        let (ram, stop) = (rig.driver.ram.clone(), stop.clone());
        std::thread::spawn(move || FakeDriver::flood(&ram, 16, &stop))
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while rig.handle.stats().errors < 10_000 {
        assert!(Instant::now() < deadline, "no flood");
        rig.driver.write(0x50, 0);
    }
    let since = Instant::now();
    rig.driver.write(0x70, 0);
    let took = since.elapsed();
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_back_end_that_is_lost_is_replaced() {
    let mut medium = MemoryMedium::new(pattern());
    medium.broken = true;
    let limiter = RateLimiter::new(RateLimit::NONE);
    let mut rig = Rig::in_memory(&medium, limiter, &Disk::read_write("memory"), !0);
    rig.send(IN, 0, &[], 512);
    rig.driver.expect_needs_reset();
    rig.driver.reset();
    rig.driver.start(!(1 << 29));
    assert_eq!(rig.read(1, 1), pattern()[512..1024]);
}

#[test]
fn a_throttled_disk_can_be_reset() {
    let rate = Rate::per_second(1).unwrap();
    let (mut rig, limiter, clock) = limited(RateLimit {
        operations: Some(rate),
        ..RateLimit::NONE
    });
    rig.read(0, 1);
    rig.send(IN, 0, &[], 512);
    expect_throttled(&rig, 1);
    rig.driver.reset();
    rig.driver.start(!(1 << 29));
    rig.send(IN, 1, &[], 512);
    expect_throttled(&rig, 2);
    clock.advance(Duration::from_secs(1));
    limiter.wake();
    assert_eq!(rig.answer(512).0, OK);
}

#[test]
fn a_second_writer_is_refused_by_name() {
    let rig = Rig::on_file(|_| ());
    let path = rig.image.as_ref().unwrap().path();
    for disk in [Disk::read_write(path), Disk::read_only(path)] {
        let Err(error) = open(&disk, 1) else {
            panic!("a disk was opened twice")
        };
        assert!(matches!(error, Error::Disk(disk::Error::Locked { .. })));
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        assert!(!error.remedy().unwrap().to_string().is_empty());
    }
    let shared = image();
    let disk = Disk::read_only(shared.path());
    let _readers = (open(&disk, 0).unwrap(), open(&disk, 1).unwrap());
    assert!(open(&Disk::read_write(shared.path()), 2).is_err());
}

#[test]
fn a_resize_reaches_the_driver() {
    for io in [DiskIo::Auto, DiskIo::Sync] {
        let mut rig = Rig::on_file(|disk| disk.io = io);
        let generation = rig.driver.read(0xfc);
        assert_eq!(rig.handle.resize().unwrap(), DISK_SECTORS * 512);
        assert_eq!(
            (rig.driver.read(0xfc), rig.driver.read(0x60)),
            (generation, 0)
        );
        assert_eq!(rig.status(IN, 4000, &[], 512), IOERR);

        rig.file().set_len(4096 * 512 + 100).unwrap();
        assert_eq!(rig.handle.resize().unwrap(), 4096 * 512);
        assert_eq!(rig.driver.config(0, 8), 4096u64.to_le_bytes());
        assert_ne!(rig.driver.read(0xfc), generation);
        assert_eq!(rig.driver.read(0x60) & 2, 2, "no configuration interrupt");
        assert_eq!(rig.read(4000, 1), [0; 512]);
        assert_eq!(rig.status(IN, 4096, &[], 512), IOERR);

        // Shorter behind the device's back: an error, not old bytes.
        rig.file().set_len(512).unwrap();
        assert_eq!(rig.status(IN, 8, &[], 512), IOERR);
        assert_eq!(rig.handle.resize().unwrap(), 512);
        rig.file().set_len(0).unwrap();
        assert!(
            rig.handle
                .resize()
                .unwrap_err()
                .to_string()
                .contains("has 0 bytes")
        );
        assert_eq!(rig.handle.bytes(), 512);
    }
}

/// §2.1.2: a driver is called between DRIVER_OK and its reset only.
#[test]
fn a_driver_that_is_not_ready_is_not_called() {
    let mut rig = Rig::on_file(|_| ());
    rig.driver.reset();
    rig.driver.line.take();
    rig.file().set_len(4096 * 512).unwrap();
    assert_eq!(rig.handle.resize().unwrap(), 4096 * 512);
    assert!(rig.driver.negotiate(!0));
    assert_eq!(rig.driver.line.take(), 0, "an interrupt came");
    assert_eq!(rig.driver.read(0x60), 0);
    // It sees the new size where it looks for it first.
    assert_eq!(rig.driver.config(0, 8), 4096u64.to_le_bytes());
}

#[test]
fn statistics_are_plain_json() {
    let mut rig = Rig::on_file(|_| ());
    rig.read(0, 4);
    let json = serde_json::to_value(rig.handle.stats()).unwrap();
    assert_eq!(
        (&json["reads"], &json["read_bytes"]),
        (&1.into(), &2048.into())
    );
    assert_eq!(json.as_object().unwrap().len(), 13);
}

#[test]
fn a_handle_that_is_kept_keeps_no_lock() {
    let mut rig = Rig::on_file(|_| ());
    rig.read(0, 8);
    let path = rig.image.as_ref().unwrap().path();
    drop(rig.driver);
    assert_eq!(rig.handle.stats().reads, 1);
    assert!(matches!(rig.handle.resize(), Err(Error::Gone { .. })));
    open(&Disk::read_write(path), 0).unwrap();
}

#[test]
fn an_image_in_another_format_is_opened_only_by_who_insists() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(image.as_file(), b"QFI\xfb\0\0\0\x03", 0).unwrap();
    for disk in [
        Disk::read_write(image.path()),
        Disk::read_only(image.path()),
    ] {
        let error = open(&disk, 0).err().unwrap();
        let said = format!(
            "disk `{}` is not raw: it is a qcow2 image",
            image.path().display()
        );
        assert_eq!(error.to_string(), said);
        assert!(
            error
                .remedy()
                .unwrap()
                .to_string()
                .contains("qemu-img convert -f qcow2 -O raw")
        );
        let insisting = Disk {
            format: Some(crate::config::DiskFormat::Raw),
            ..disk
        };
        assert!(open(&insisting, 0).is_ok());
    }
}
