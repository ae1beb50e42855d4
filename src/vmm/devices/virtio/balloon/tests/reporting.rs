//! Free memory that a driver reports.

use super::*;

/// Where a driver that keeps to the numbers of the specification has its reports.
const REPORTS_BY_NUMBER: usize = 4;

impl Rig {
    /// A driver that has accepted these features and set up these queues.
    fn with_queues(features: u64, queues: &[usize]) -> Self {
        let mut rig = Self::untouched("");
        assert!(rig.driver.negotiate(features | 1 << 32));
        queues
            .iter()
            .for_each(|queue| rig.driver.set_up_queue(*queue));
        rig.driver.write(0x70, 15);
        rig
    }

    fn report(&mut self, queue: usize, ranges: &[(u64, u32)]) {
        let buffers: Vec<_> = ranges
            .iter()
            .map(|(at, bytes)| (*at, *bytes, WRITE))
            .collect();
        self.driver.send(queue, &buffers);
        assert_eq!(self.driver.used(queue), (0, 0));
    }
}

#[test]
fn reported_memory_leaves_the_host() {
    let mut rig = Rig::ready("");
    rig.touch(FIRST..FIRST + 1024);
    let start = u64::from(FIRST) * PAGE;
    // The rings are touched by now.
    rig.report(REPORTS, &[(start, 0)]);
    let before = rig.resident_pages();
    rig.report(REPORTS, &[(start, 1 << 20), (start + (3 << 20), 512 << 10)]);
    assert_eq!(rig.resident_pages(), before - 384);
    assert_eq!(rig.handle.stats().reported_bytes, 384 * PAGE);
    assert_eq!(rig.handle.stats().inflated_bytes, 0);
    let kept: Vec<u32> = (FIRST + 256..FIRST + 768)
        .chain(FIRST + 896..FIRST + 1024)
        .collect();
    assert_eq!(rig.kept(FIRST..FIRST + 1024), kept);
    rig.touch(FIRST..FIRST + 1024);
    assert_eq!(rig.resident_pages(), before);
}

#[test]
fn only_whole_pages_within_a_range_go() {
    let mut rig = Rig::ready("");
    let start = u64::from(FIRST) * PAGE;
    for (from, bytes, gone) in [
        (0, 1, 0),
        (0, 4095, 0),
        (1, 4096, 0),
        (1, 8191, 1),
        (4095, 4097, 1),
        (100, 3 * 4096, 2),
        (0, 0, 0),
    ] {
        rig.touch(FIRST..FIRST + 4);
        rig.report(REPORTS, &[(start + from, bytes)]);
        let kept = rig.kept(FIRST..FIRST + 4).len();
        assert_eq!(kept, 4 - gone, "{from} {bytes}");
    }
    rig.expect_alive();
}

#[test]
fn ranges_that_are_wrong_break_the_device() {
    let start = u64::from(FIRST) * PAGE;
    for buffers in [
        // Not RAM, running out of it, around the end of the address space.
        &[(8 << 20, 4096, WRITE)][..],
        &[((8 << 20) - 4096, 8192, WRITE)],
        &[(u64::MAX - 4095, 4096, WRITE)],
        &[(start, 4096, WRITE), (0xd000_1000, 4096, WRITE)],
        // What the device may not write, it may not empty either.
        &[(start, 4096, 0)],
        &[(start, 4, 0), (start, 4096, WRITE)],
        &[(start, 4096, WRITE), (start, 4096, 0)],
    ] {
        let mut rig = Rig::ready("");
        rig.touch(FIRST..FIRST + 1);
        rig.driver.send(REPORTS, buffers);
        rig.driver.expect_needs_reset();
        assert_eq!(rig.kept(FIRST..FIRST + 1), [FIRST], "{buffers:?}");
        rig.expect_recovery();
    }
}

/// Linux closes the gap that free page hints leave, and that of statistics if it does without; others may not.
#[test]
fn reports_are_found_wherever_the_driver_has_them() {
    use feature::{PAGE_REPORTING, STATS_VQ};
    for (features, queues, reports) in [
        (STATS_VQ | PAGE_REPORTING, &[0, 1, 2, 3][..], REPORTS),
        (STATS_VQ | PAGE_REPORTING, &[0, 1, 2, 4], REPORTS_BY_NUMBER),
        (PAGE_REPORTING, &[0, 1, 2], STATISTICS),
        (PAGE_REPORTING, &[0, 1, 4], REPORTS_BY_NUMBER),
    ] {
        let mut rig = Rig::with_queues(features, queues);
        rig.touch(FIRST..FIRST + 1);
        rig.report(reports, &[(u64::from(FIRST) * PAGE, 4096)]);
        assert_eq!(rig.kept(FIRST..FIRST + 1), GONE, "{queues:?}");
        rig.expect_alive();
    }
}

#[test]
fn without_the_feature_nothing_is_taken() {
    let mut rig = Rig::with_queues(feature::STATS_VQ, &[0, 1, 2, 3]);
    rig.touch(FIRST..FIRST + 1);
    rig.driver
        .send(REPORTS, &[(u64::from(FIRST) * PAGE, 4096, WRITE)]);
    rig.send_pages(INFLATE, &[]);
    assert_eq!(rig.driver.poll_used(REPORTS), None);
    assert_eq!(rig.kept(FIRST..FIRST + 1), [FIRST]);
}
