//! Every request type, well-formed.

use super::*;
use crate::devices::virtio::fake_driver::{INDIRECT, NEXT};

#[test]
fn the_configuration_space_tells_the_disk() {
    let mut rig = Rig::on_file(|disk| disk.queues = 4.try_into().unwrap());
    let config = &mut rig.driver;
    assert_eq!(config.config(0, 8), DISK_SECTORS.to_le_bytes());
    assert_eq!(config.config(12, 4), 126u32.to_le_bytes());
    assert_eq!(config.config(20, 4), 512u32.to_le_bytes());
    assert_eq!(config.config(24, 4), [3, 0, 8, 0]);
    assert_eq!(config.config(32, 1), [1]);
    assert_eq!(config.config(34, 2), [4, 0]);
    // Beyond the end, and across it.
    assert_eq!(config.config(58, 4), [0; 4]);
    assert_eq!(config.config(0xe00, 8), [0; 8]);
}

#[test]
fn features_follow_the_configuration() {
    use feature::*;
    let always = SEG_MAX | BLK_SIZE | TOPOLOGY;
    let writable = always | FLUSH | CONFIG_WCE | DISCARD | WRITE_ZEROES;
    let offered = |change: fn(&mut Disk)| {
        let image = image();
        let mut disk = Disk::read_write(image.path());
        change(&mut disk);
        open(&disk, 0).unwrap().0.features()
    };
    assert_eq!(offered(|_| ()), writable);
    assert_eq!(offered(|disk| disk.read_only = true), always | RO);
    assert_eq!(
        offered(|disk| disk.cache = Cache::WriteThrough),
        always | DISCARD | WRITE_ZEROES
    );
    assert_eq!(
        offered(|disk| disk.queues = 2.try_into().unwrap()),
        writable | MQ
    );
}

#[test]
fn names_count_as_linux_does() {
    let names = [0, 1, 25, 26, 701, 702].map(name);
    assert_eq!(names, ["vda", "vdb", "vdz", "vdaa", "vdzz", "vdaaa"]);
}

#[test]
fn reads_see_the_disk_and_writes_change_it() {
    for mut rig in Rig::each(|_| ()) {
        let mut expected = pattern();
        assert_eq!(rig.read(0, 1), expected[..SECTOR]);
        assert_eq!(
            rig.read(DISK_SECTORS - 8, 8),
            expected[expected.len() - 8 * SECTOR..]
        );
        let data: Vec<u8> = (0..16 * SECTOR).map(|i| (i * 7) as u8).collect();
        rig.write(100, &data);
        expected[100 * SECTOR..116 * SECTOR].copy_from_slice(&data);
        assert_eq!(rig.read(90, 40), expected[90 * SECTOR..130 * SECTOR]);
        assert_eq!(rig.status(FLUSH, 0, &[], 0), OK);
        if let Some(image) = &rig.image {
            assert!(std::fs::read(image.path()).unwrap() == expected);
        }
        // The last interrupt comes behind the last answer; the reset waits for it.
        rig.driver.reset();
        let stats = rig.handle.stats();
        assert_eq!((stats.reads, stats.writes, stats.flushes), (3, 1, 1));
        assert_eq!(
            (stats.read_bytes, stats.written_bytes),
            (49 * 512, 16 * 512)
        );
        assert_eq!((stats.errors, stats.throttled), (0, 0));
        assert!(
            stats.notifications >= 1 && stats.notifications <= 5,
            "{stats:?}"
        );
        assert_eq!(stats.interrupts, 5);
    }
}

#[test]
fn large_transfers_pass_in_one_request() {
    for mut rig in Rig::each(|_| ()) {
        let data = vec![0x5a; 1 << 20];
        assert_eq!(rig.read(0, 2048), pattern());
        rig.write(0, &data);
        assert_eq!(rig.read(0, 2048), data);
    }
}

#[test]
fn transfers_of_nothing_succeed() {
    for mut rig in Rig::each(|_| ()) {
        assert_eq!(rig.request(IN, 5, &[], 0), (OK, 1, vec![]));
        assert_eq!(rig.request(OUT, DISK_SECTORS, &[], 0), (OK, 1, vec![]));
        assert_eq!(rig.ranged(DISCARD, 5, 0, 0), OK);
        assert_eq!(rig.ranged(WRITE_ZEROES, 5, 0, 1), OK);
    }
}

#[test]
fn discards_and_zeroes() {
    for mut rig in Rig::each(|_| ()) {
        for (kind, sector, flags) in [
            (DISCARD, 64, 0),
            (WRITE_ZEROES, 128, 0),
            (WRITE_ZEROES, 256, 1),
        ] {
            assert_eq!(rig.ranged(kind, sector, 64, flags), OK);
            assert_eq!(rig.read(sector, 64), vec![0; 64 * SECTOR], "{kind} {flags}");
        }
        let expected = pattern();
        assert_eq!(rig.read(0, 64), expected[..64 * SECTOR]);
        assert_eq!(rig.read(192, 64), expected[192 * SECTOR..256 * SECTOR]);
        assert_eq!(rig.read(320, 8), expected[320 * SECTOR..328 * SECTOR]);
        let stats = rig.handle.stats();
        assert_eq!((stats.discards, stats.write_zeroes), (1, 2));
    }
}

#[test]
fn a_discard_gives_space_back_and_zeroes_without_unmap_do_not() {
    use std::os::unix::fs::MetadataExt;
    let blocks = |rig: &Rig| {
        rig.file().sync_all().unwrap();
        rig.file().metadata().unwrap().blocks()
    };
    for mut rig in Rig::each(|_| ()) {
        if rig.image.is_none() {
            continue;
        }
        let before = blocks(&rig);
        assert_eq!(rig.ranged(WRITE_ZEROES, 0, 256, 0), OK);
        assert_eq!(blocks(&rig), before);
        assert_eq!(rig.ranged(WRITE_ZEROES, 0, 256, 1), OK);
        assert_eq!(blocks(&rig), before - 256);
        assert_eq!(rig.ranged(DISCARD, 256, 256, 0), OK);
        assert_eq!(blocks(&rig), before - 512);
        assert_eq!(rig.file().metadata().unwrap().len(), DISK_SECTORS * 512);
    }
}

#[test]
fn the_identity_is_padded_with_zeroes() {
    for mut rig in Rig::each(|disk| disk.id = Some("data-7".to_owned().try_into().unwrap())) {
        let (status, written, id) = rig.request(GET_ID, 0, &[], 20);
        assert_eq!((status, written), (OK, 21));
        assert_eq!(id, b"data-7\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }
    let mut rig = Rig::on_file(|_| ());
    // In a larger buffer what is written has a gap before the status, and only the first part is reported.
    let (status, written, id) = rig.request(GET_ID, 0, &[], 32);
    assert_eq!((status, written), (OK, 20));
    assert_eq!(&id[..9], b"kvmlet-0\0");
}

#[test]
fn a_request_may_be_cut_anyhow() {
    for mut rig in Rig::each(|_| ()) {
        // Header in three parts; data and status in one.
        rig.header(IN, 7);
        let parts = [
            (HEADER, 3, 0),
            (HEADER + 3, 12, 0),
            (HEADER + 15, 1, 0),
            (INCOMING, 200, WRITE),
            (INCOMING + 200, 313, WRITE),
        ];
        rig.driver.send(0, &parts);
        assert_eq!(rig.driver.used(0), (0, 513));
        let data = rig.driver.bytes(INCOMING, 513);
        assert_eq!(
            (&data[..512], data[512]),
            (&pattern()[7 * 512..8 * 512], OK)
        );
        // Header and data of a write in one.
        rig.header(OUT, 9);
        rig.driver.put(HEADER + 16, &[0xab; 512]);
        rig.driver
            .send(0, &[(HEADER, 528, 0), (INCOMING, 1, WRITE)]);
        assert_eq!(rig.driver.used(0), (0, 1));
        assert_eq!(rig.read(9, 1), [0xab; 512]);
    }
}

#[test]
fn an_indirect_table_holds_a_request() {
    for mut rig in Rig::each(|_| ()) {
        rig.header(IN, 3);
        let table = BUFFERS + 0x800;
        rig.driver.describe_at(table, 0, (HEADER, 16, NEXT, 1));
        rig.driver
            .describe_at(table, 1, (INCOMING, 1024, NEXT | WRITE, 2));
        rig.driver
            .describe_at(table, 2, (INCOMING + 1024, 1, WRITE, 0));
        rig.driver.describe(0, 5, (table, 48, INDIRECT, 0));
        rig.driver.offer(0, 5);
        assert_eq!(rig.driver.used(0), (5, 1025));
        assert_eq!(
            rig.driver.bytes(INCOMING, 1024),
            &pattern()[3 * 512..5 * 512]
        );
    }
}

#[test]
fn every_queue_serves() {
    for io in [DiskIo::Auto, DiskIo::Sync] {
        let mut rig = Rig::on_file(|disk| {
            disk.queues = 3.try_into().unwrap();
            disk.io = io;
        });
        for queue in [2, 0, 1] {
            rig.header(IN, 1 + queue as u64);
            rig.driver.send(
                queue,
                &[
                    (HEADER, 16, 0),
                    (INCOMING, 512, WRITE),
                    (INCOMING + 512, 1, WRITE),
                ],
            );
            assert_eq!(rig.driver.used(queue), (0, 513));
            let sector = 512 * (1 + queue);
            assert_eq!(
                rig.driver.bytes(INCOMING, 512),
                &pattern()[sector..sector + 512]
            );
        }
    }
}

/// Offers five reads at once and takes the answers.
fn batch(rig: &mut Rig) {
    rig.header(IN, 11);
    for head in 0..5 {
        let place = INCOMING + 0x1000 * u64::from(head);
        let request = [
            (HEADER, 16, NEXT, 3 * head + 1),
            (place, 512, NEXT | WRITE, 3 * head + 2),
            (place + 512, 1, WRITE, 0),
        ];
        for (index, descriptor) in (3 * head..).zip(request) {
            rig.driver.describe(0, index, descriptor);
        }
    }
    rig.driver.offer_all(0, &[0, 3, 6, 9, 12]);
    for head in [0, 3, 6, 9, 12] {
        assert_eq!(rig.driver.used(0), (head, 513));
    }
}

#[test]
fn a_batch_takes_one_notification_and_one_interrupt() {
    let medium = MemoryMedium::new(pattern());
    let disk = Disk::read_write("memory");
    let mut rig = Rig::in_memory(&medium, RateLimiter::new(disk.rate_limit), &disk, !0);
    batch(&mut rig);
    rig.driver.reset();
    let stats = rig.handle.stats();
    assert_eq!(
        (stats.reads, stats.notifications, stats.interrupts),
        (5, 1, 1)
    );
}

#[test]
fn event_indices_spare_interrupts_and_ask_for_the_next_request() {
    for mut rig in Rig::each(|_| ()) {
        rig.driver.reset();
        rig.driver.start(!0);
        rig.driver.expect_avail_event(0, 0);
        let before = rig.handle.stats().interrupts;
        for round in 1..=3 {
            batch(&mut rig);
            rig.driver.expect_avail_event(0, 5 * round);
        }
        // The driver wanted to hear of the first answer (its used_event stays 0) and of no other.
        assert_eq!(rig.handle.stats().interrupts, before + 1);
        assert_eq!(rig.handle.stats().reads, 15);
    }
}

#[test]
fn no_request_is_overlooked_between_looking_and_sleeping() {
    let medium = MemoryMedium::new(pattern());
    let disk = Disk::read_write("memory");
    let mut rig = Rig::in_memory(&medium, RateLimiter::new(disk.rate_limit), &disk, !0);
    rig.driver.reset();
    rig.driver.start(!0);
    rig.header(FLUSH, 0);
    for head in 0..4 {
        rig.driver
            .describe(0, 2 * head, (HEADER, 16, NEXT, 2 * head + 1));
        rig.driver
            .describe(0, 2 * head + 1, (INCOMING, 1, WRITE, 0));
    }
    // Two in flight, and each notified only if the device asks for it: the device is about to sleep most
    // of the time when the next one comes.
    rig.driver.offer_if_asked(0, &[0]);
    for round in 0..20_000u16 {
        rig.driver.offer_if_asked(0, &[2 * ((round + 1) % 4)]);
        assert_eq!(rig.driver.used(0).0, u32::from(2 * (round % 4)));
    }
    let stats = rig.handle.stats();
    assert!(stats.notifications < 20_000, "{stats:?}");
}
