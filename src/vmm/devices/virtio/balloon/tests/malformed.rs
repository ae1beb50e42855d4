//! What a driver must not send. What is no RAM is left alone; what makes no sense breaks the device, and the
//! driver can start over.

use super::*;
use crate::devices::virtio::fake_driver::{INDIRECT, NEXT};

#[test]
fn pages_that_are_not_ram_are_left_alone() {
    let mut rig = Rig::ready("");
    rig.touch(FIRST..FIRST + 2);
    // The driver's RAM ends at 8 MiB: behind it, device memory, above 4 GiB, the last page that there can be.
    let outside = [2048, 0xd_0001, 0xf_ec00, 0x10_0000, u32::MAX];
    let list = [&[FIRST][..], &outside, &[FIRST + 1]].concat();
    rig.send_pages(INFLATE, &list);
    assert_eq!(rig.kept(FIRST..FIRST + 2), GONE);
    assert_eq!(rig.handle.stats().refused_pages, 5);
    assert_eq!(rig.handle.stats().inflated_bytes, 2 * PAGE);
    // Taking out of the balloon changes nothing here, whatever it names.
    rig.send_pages(DEFLATE, &outside);
    rig.expect_alive();
}

#[test]
fn the_rings_themselves_can_be_given_away() {
    let mut rig = Rig::ready("");
    // Half of RAM, with the queues and this very list in it.
    let all: Vec<u32> = (0..1024).collect();
    let bytes: Vec<u8> = all.iter().flat_map(|page| page.to_le_bytes()).collect();
    rig.driver.put(BUFFERS, &bytes);
    rig.driver
        .send(INFLATE, &[(BUFFERS, bytes.len() as u32, 0)]);
    eventually("the pages are gone", || {
        rig.handle.stats().inflated_bytes >= 1024 * PAGE
    });
    rig.expect_recovery();
}

#[test]
fn lists_that_are_none_break_the_device() {
    for queue in [INFLATE, DEFLATE] {
        for buffers in [
            &[(BUFFERS, 1, 0)][..],
            &[(BUFFERS, 7, 0)],
            &[(BUFFERS, 4, 0), (BUFFERS, 2, 0)],
            &[(BUFFERS, 8, WRITE)],
            &[(BUFFERS, 8, 0), (BUFFERS, 8, WRITE)],
            // Outside RAM, and running out of it.
            &[(8 << 20, 4, 0)],
            &[(u64::MAX - 3, 4, 0)],
            &[((8 << 20) - 4, 8, 0)],
            &[(BUFFERS, u32::MAX - 3, 0)],
        ] {
            let mut rig = Rig::ready("");
            rig.touch(FIRST..FIRST + 1);
            rig.driver.send(queue, buffers);
            rig.driver.expect_needs_reset();
            assert_eq!(rig.driver.poll_used(queue), None, "{buffers:?}");
            assert_eq!(rig.kept(FIRST..FIRST + 1), [FIRST]);
            eventually("nobody is there to be asked", || {
                matches!(rig.handle.ask_guest(Duration::ZERO), Err(Error::NoDriver))
            });
            rig.expect_recovery();
        }
    }
}

#[test]
fn chains_that_loop_break_the_device() {
    let mut rig = Rig::ready("");
    rig.driver.describe(INFLATE, 0, (BUFFERS, 4, NEXT, 1));
    rig.driver.describe(INFLATE, 1, (BUFFERS, 4, NEXT, 0));
    rig.driver.offer(INFLATE, 0);
    rig.driver.expect_needs_reset();
    rig.expect_recovery();
}

#[test]
fn a_request_can_be_huge() {
    let mut rig = Rig::ready("");
    rig.touch(FIRST..FIRST + 1);
    rig.driver
        .put(BUFFERS, &FIRST.to_le_bytes().repeat(1 << 16));
    // A megabyte of page numbers, all the same, by a table of descriptors.
    let table = BUFFERS + (1 << 19);
    for index in 0..4 {
        let flags = if index < 3 { NEXT } else { 0 };
        rig.driver
            .describe_at(table, index, (BUFFERS, 1 << 18, flags, index + 1));
    }
    rig.driver.describe(INFLATE, 0, (table, 64, INDIRECT, 0));
    rig.driver.offer(INFLATE, 0);
    assert_eq!(rig.driver.used(INFLATE), (0, 0));
    assert_eq!(rig.kept(FIRST..FIRST + 1), GONE);
    assert!(rig.handle.stats().inflated_bytes >= PAGE);
    rig.expect_alive();
}

#[test]
fn a_reset_does_not_wait_for_a_huge_request() {
    let mut rig = Rig::ready("");
    let table = BUFFERS;
    for index in 0..16 {
        let flags = if index < 15 { NEXT } else { 0 };
        rig.driver
            .describe_at(table, index, (0x20_0000, 6 << 20, flags, index + 1));
    }
    rig.driver.describe(INFLATE, 0, (table, 256, INDIRECT, 0));
    rig.driver.offer(INFLATE, 0);
    eventually("it is at work", || rig.handle.stats().inflated_bytes > 0);
    rig.expect_recovery();
}

#[test]
fn rings_that_contradict_themselves_break_the_device() {
    for queue in 0..4 {
        let mut rig = Rig::ready("");
        rig.driver.set_avail_index(queue, 1000);
        rig.driver.write(0x50, queue as u32);
        rig.driver.expect_needs_reset();
        rig.expect_recovery();
    }
}
