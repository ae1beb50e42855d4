//! Features, queues and the configuration space.

use super::*;

const NONE: u64 = 0;

#[test]
fn what_is_offered_follows_the_configuration() {
    use feature::{DEFLATE_ON_OOM, PAGE_REPORTING, STATS_VQ};
    for (config, features, queues) in [
        ("", STATS_VQ | DEFLATE_ON_OOM | PAGE_REPORTING, 5),
        ("deflate-on-oom=off", STATS_VQ | PAGE_REPORTING, 5),
        ("reporting=off", STATS_VQ | DEFLATE_ON_OOM, 3),
    ] {
        let mut rig = Rig::untouched(config);
        assert_eq!(rig.driver.read(0x008), 5);
        assert_eq!(rig.driver.offered() & 0xff_ffff, features, "{config}");
        let sizes: Vec<u32> = (0..6)
            .map(|queue| {
                rig.driver.write(0x30, queue);
                rig.driver.read(0x34)
            })
            .collect();
        let expected: Vec<u32> = (0..6)
            .map(|queue| if queue < queues { 64 } else { 0 })
            .collect();
        assert_eq!(sizes, expected);
    }
}

#[test]
fn the_target_is_there_and_changes_interrupt() {
    let mut rig = Rig::untouched("size=3M");
    assert_eq!(rig.driver.config(0, 8), [0, 3, 0, 0, 0, 0, 0, 0]);
    // Before a driver is there, the target waits for it.
    rig.handle.set_target(4.mib()).unwrap();
    assert_eq!(rig.driver.line.take(), 0);
    assert_eq!(rig.driver.config(0, 4), [0, 4, 0, 0]);
    rig.driver.start(!(1 << 29));

    let generation = rig.driver.read(0x0fc);
    rig.handle
        .set_target(Memory::from_bytes((5 << 20) + 4095))
        .unwrap();
    assert_eq!(
        (rig.handle.target(), rig.handle.stats().target_bytes),
        (5.mib(), 5 << 20)
    );
    assert_eq!(rig.driver.read(0x60), 2);
    assert_eq!(rig.driver.config(0, 4), [0, 5, 0, 0]);
    assert_ne!(rig.driver.read(0x0fc), generation);
    rig.driver.write(0x64, 2);
    assert_eq!(rig.driver.line.take(), 1);
    // What is as wanted already needs no interrupt.
    rig.handle.set_target(5.mib()).unwrap();
    assert_eq!(rig.driver.line.take(), 0);
    rig.handle.set_target(0.mib()).unwrap();
    assert_eq!(rig.driver.config(0, 4), [0; 4]);
}

#[test]
fn a_target_leaves_the_guest_enough() {
    let rig = Rig::untouched("size=1M");
    rig.handle.set_target(48.mib()).unwrap();
    let error = rig.handle.set_target(49.mib()).unwrap_err();
    assert!(matches!(error, Error::Size(_)), "{error}");
    assert!(error.to_string().contains("48 MiB is the most"), "{error}");
    assert!(rig.handle.set_target(Memory::from_bytes(u64::MAX)).is_err());
    assert_eq!(rig.handle.target(), 48.mib());
}

#[test]
fn the_driver_tells_how_much_is_in_the_balloon() {
    let mut rig = Rig::ready("size=1M");
    let write = |rig: &mut Rig, offset: u64, bytes: &[u8]| {
        let _ = rig.driver.transport.write(0x100 + offset, bytes);
    };
    write(&mut rig, 4, &[7, 1, 0, 0]);
    assert_eq!(rig.handle.actual().bytes(), 0x107 * PAGE);
    assert_eq!(rig.driver.config(4, 4), [7, 1, 0, 0]);
    // Nothing else can be written, and not in parts.
    for (offset, bytes) in [
        (0, &[9u8; 4][..]),
        (0, &[9; 8]),
        (2, &[9; 4]),
        (4, &[9]),
        (4, &[9; 2]),
        (4, &[9; 8]),
        (5, &[9; 2]),
        (8, &[9; 4]),
        (0xefc, &[9; 4]),
    ] {
        write(&mut rig, offset, bytes);
    }
    assert_eq!(
        rig.driver.config(0, 16),
        [0, 1, 0, 0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(rig.driver.config(6, 1), [0]);
    // A guest may say what it likes; it is only shown.
    write(&mut rig, 4, &[0xff; 4]);
    assert_eq!(rig.handle.stats().actual_bytes, u64::from(u32::MAX) * PAGE);
    rig.driver.reset();
    assert_eq!(rig.handle.actual().bytes(), NONE);
    // Nor can anything be in it before the driver is ready.
    assert!(rig.driver.negotiate(!0));
    write(&mut rig, 4, &[1, 0, 0, 0]);
    assert_eq!(rig.handle.actual().bytes(), NONE);
}
