//! When writes are durable, and what short or failing transfers come to.

use super::*;
use crate::devices::virtio::block::job::Operation::{self, Punch, Read, Sync, Write, Zero};

const LAZY: Operation = Write { durable: false };
const DURABLE: Operation = Write { durable: true };

fn rig(medium: &MemoryMedium, cache: Cache, features: u64) -> Rig {
    let disk = Disk {
        cache,
        ..Disk::read_write("memory")
    };
    Rig::in_memory(medium, RateLimiter::new(disk.rate_limit), &disk, features)
}

fn write_operation(rig: &mut Rig, medium: &MemoryMedium) -> Vec<Operation> {
    rig.write(0, &[1; 512]);
    medium.log()
}

#[test]
fn write_back_writes_become_durable_by_a_flush() {
    let medium = MemoryMedium::new(pattern());
    let mut rig = rig(&medium, Cache::WriteBack, !0);
    assert_eq!(write_operation(&mut rig, &medium), [LAZY]);
    assert_eq!(rig.status(FLUSH, 0, &[], 0), OK);
    assert_eq!(medium.log(), [Sync]);
    assert_eq!(rig.ranged(WRITE_ZEROES, 0, 8, 0), OK);
    assert_eq!(rig.ranged(WRITE_ZEROES, 0, 8, 1), OK);
    assert_eq!(rig.ranged(DISCARD, 0, 8, 0), OK);
    assert_eq!(medium.log(), [Zero, Punch, Punch]);
}

#[test]
fn write_through_writes_are_durable_when_answered() {
    let medium = MemoryMedium::new(pattern());
    let mut rig = rig(&medium, Cache::WriteThrough, !0);
    assert_eq!(rig.driver.config(32, 1), [0]);
    assert_eq!(write_operation(&mut rig, &medium), [DURABLE]);
    assert_eq!(rig.ranged(WRITE_ZEROES, 0, 8, 0), OK);
    assert_eq!(rig.ranged(WRITE_ZEROES, 0, 8, 1), OK);
    assert_eq!(medium.log(), [Zero, Sync, Punch, Sync]);
    // The driver has no switch for it.
    rig.driver
        .transport
        .session()
        .device()
        .write_config(32, &[1]);
    assert_eq!(write_operation(&mut rig, &medium), [DURABLE]);
}

#[test]
fn a_driver_that_cannot_flush_gets_write_through() {
    let medium = MemoryMedium::new(pattern());
    let mut rig = rig(
        &medium,
        Cache::WriteBack,
        !(feature::FLUSH | feature::CONFIG_WCE),
    );
    assert_eq!(write_operation(&mut rig, &medium), [DURABLE]);
}

#[test]
fn a_driver_may_switch_the_cache_off_until_the_reset() {
    let medium = MemoryMedium::new(pattern());
    let mut rig = rig(&medium, Cache::WriteBack, !0);
    assert_eq!(rig.driver.config(32, 1), [1]);
    // Neither another field nor another size moves the switch.
    for (offset, value) in [(31, &[0, 0][..]), (32, &[0, 0]), (33, &[0]), (0, &[0])] {
        rig.driver
            .transport
            .session()
            .device()
            .write_config(offset, value);
    }
    assert_eq!(write_operation(&mut rig, &medium), [LAZY]);
    rig.driver
        .transport
        .session()
        .device()
        .write_config(32, &[0]);
    assert_eq!(rig.driver.config(32, 1), [0]);
    assert_eq!(write_operation(&mut rig, &medium), [DURABLE]);
    rig.driver.reset();
    assert_eq!(rig.driver.config(32, 1), [1]);
    // Without the feature there is no switch.
    rig.driver.start(!(feature::CONFIG_WCE | 1 << 29));
    rig.driver
        .transport
        .session()
        .device()
        .write_config(32, &[0]);
    assert_eq!(write_operation(&mut rig, &medium), [LAZY]);
}

#[test]
fn short_transfers_go_on_where_they_stopped() {
    let mut medium = MemoryMedium::new(pattern());
    medium.lot = 700;
    let mut rig = rig(&medium, Cache::WriteThrough, !0);
    assert_eq!(rig.read(3, 4), pattern()[3 * 512..7 * 512]);
    assert_eq!(medium.log(), [Read; 3]);
    let data: Vec<u8> = (0..2048).map(|i| (i % 251) as u8).collect();
    rig.write(8, &data);
    assert_eq!(medium.log(), [DURABLE; 3]);
    assert_eq!(rig.read(8, 4), data);
}

#[test]
fn zeroes_are_written_where_they_cannot_be_made() {
    let sectors = (5 << 20) / 512;
    for (operation, flags) in [(Zero, 0), (Punch, 1)] {
        let mut medium = MemoryMedium::new(vec![0xff; 6 << 20]);
        medium.fails = Some((operation, libc::EOPNOTSUPP));
        let mut rig = rig(&medium, Cache::WriteThrough, !0);
        assert_eq!(rig.ranged(WRITE_ZEROES, 8, sectors, flags), OK);
        let mut lots = vec![DURABLE; 6];
        lots[0] = operation;
        assert_eq!(medium.log(), lots);
        assert_eq!(rig.read(0, 16), [[0xff; 4096], [0; 4096]].concat());
        let end = u64::from(sectors) + 8;
        assert_eq!(rig.read(end - 8, 16), [[0; 4096], [0xff; 4096]].concat());
    }
}

#[test]
fn a_discard_that_the_host_cannot_do_is_no_error() {
    let mut medium = MemoryMedium::new(pattern());
    medium.fails = Some((Punch, libc::EOPNOTSUPP));
    let mut rig = rig(&medium, Cache::WriteBack, !0);
    assert_eq!(rig.ranged(DISCARD, 8, 8, 0), OK);
    assert_eq!(rig.read(0, 2048), pattern());
}

#[test]
fn failures_of_the_host_are_answered() {
    for (operation, error, tries) in [
        (Read, libc::EIO, 1),
        (Read, libc::EAGAIN, 101),
        (LAZY, libc::ENOSPC, 1),
        (Sync, libc::EIO, 1),
        (Zero, libc::EIO, 1),
    ] {
        let mut medium = MemoryMedium::new(pattern());
        medium.fails = Some((operation, error));
        let mut rig = rig(&medium, Cache::WriteBack, !0);
        let status = match operation {
            Read => rig.status(IN, 0, &[], 512),
            LAZY => rig.status(OUT, 0, &[0; 512], 0),
            Sync => rig.status(FLUSH, 0, &[], 0),
            _ => rig.ranged(WRITE_ZEROES, 0, 8, 0),
        };
        assert_eq!(status, IOERR, "{operation:?}");
        assert_eq!(medium.log(), vec![operation; tries]);
        assert_eq!(rig.handle.stats().errors, 1);
        assert!(!rig.driver.needs_reset());
    }
}
