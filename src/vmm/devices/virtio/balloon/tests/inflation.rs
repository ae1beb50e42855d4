//! Pages in and out of the balloon.

use super::*;
use proptest::prelude::*;

#[test]
fn inflated_pages_leave_the_host_and_come_back_when_touched() {
    let mut rig = Rig::ready("");
    let pages = FIRST..FIRST + 1000;
    rig.touch(pages.clone());
    rig.touch(FIRST + 1000..FIRST + 1024);
    // Rings and buffer are touched by now.
    rig.send_pages(INFLATE, &[]);
    rig.send_pages(DEFLATE, &[]);
    rig.driver.put(BUFFERS, &[0; 4096]);
    let before = rig.resident_pages();
    let list: Vec<u32> = pages.clone().rev().collect();
    rig.send_pages(INFLATE, &list);
    assert_eq!(rig.resident_pages(), before - 1000);
    assert_eq!(
        rig.kept(FIRST..FIRST + 1024),
        (FIRST + 1000..FIRST + 1024).collect::<Vec<_>>()
    );
    assert_eq!(rig.handle.stats().inflated_bytes, 1000 * PAGE);

    rig.send_pages(DEFLATE, &list);
    assert_eq!(rig.handle.stats().deflated_bytes, 1000 * PAGE);
    rig.touch(pages.clone());
    assert_eq!(rig.resident_pages(), before);
    assert_eq!(rig.kept(pages.clone()), pages.collect::<Vec<_>>());
    assert_eq!(rig.handle.stats().refused_pages, 0);
}

#[test]
fn a_page_can_be_named_often_and_anywhere() {
    let mut rig = Rig::ready("");
    rig.touch(FIRST..FIRST + 4);
    rig.send_pages(INFLATE, &[FIRST + 2, FIRST, FIRST + 2, FIRST + 2, FIRST]);
    assert_eq!(rig.kept(FIRST..FIRST + 4), [FIRST + 1, FIRST + 3]);
    assert_eq!(rig.handle.stats().inflated_bytes, 2 * PAGE);
    // A list in several buffers, cut in the middle of a number.
    let bytes: Vec<u8> = [FIRST + 1, FIRST + 3]
        .iter()
        .flat_map(|page| page.to_le_bytes())
        .collect();
    rig.driver.put(BUFFERS, &bytes[..3]);
    rig.driver.put(BUFFERS + 100, &bytes[3..]);
    rig.driver.send(
        INFLATE,
        &[(BUFFERS, 3, 0), (BUFFERS + 50, 0, 0), (BUFFERS + 100, 5, 0)],
    );
    rig.driver.used(INFLATE);
    assert_eq!(rig.kept(FIRST..FIRST + 4), GONE);
}

#[test]
fn many_requests_are_answered_in_turn() {
    let mut rig = Rig::ready("");
    for round in 0..40u32 {
        let heads: Vec<u16> = (0..16).collect();
        for head in 0..16u16 {
            let page = FIRST + (round * 16 + u32::from(head)) % 1024;
            let at = BUFFERS + 4 * u64::from(head);
            rig.touch(page..page + 1);
            rig.driver.put(at, &page.to_le_bytes());
            rig.driver.describe(INFLATE, head, (at, 4, 0, 0));
        }
        rig.driver.offer_all(INFLATE, &heads);
        heads
            .iter()
            .for_each(|head| assert_eq!(rig.driver.used(INFLATE), ((*head).into(), 0)));
    }
    assert_eq!(rig.handle.stats().inflated_bytes, 640 * PAGE);
    assert_eq!(rig.kept(FIRST..FIRST + 640), GONE);
}

#[test]
fn a_driver_may_leave_queues_away() {
    let mut rig = Rig::untouched("");
    assert!(rig.driver.negotiate(1 << 32));
    rig.driver.set_up_queue(INFLATE);
    rig.driver.write(0x70, 15);
    rig.expect_alive();
    rig.driver.write(0x50, DEFLATE as u32);
    rig.driver.write(0x50, STATISTICS as u32);
    rig.expect_alive();
    assert!(matches!(
        rig.handle.ask_guest(PATIENCE),
        Err(Error::NoDriver)
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Exactly the pages that were named are gone, whatever else was named with them.
    #[test]
    fn what_is_named_goes_and_what_is_not_stays(
        pages in proptest::collection::vec(FIRST..FIRST + 1100, 0..600),
        cut in 0..2400u32,
    ) {
        let mut rig = Rig::ready("");
        let all = FIRST..FIRST + 1024;
        rig.touch(all.clone());
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        let cut = cut.min(bytes.len() as u32);
        rig.driver.put(BUFFERS, &bytes);
        let rest = bytes.len() as u32 - cut;
        let buffers = [(BUFFERS, cut, 0), (BUFFERS + u64::from(cut), rest, 0)];
        rig.driver.send(INFLATE, &buffers);
        rig.driver.used(INFLATE);
        let stay: Vec<u32> = all.clone().filter(|page| !pages.contains(page)).collect();
        prop_assert_eq!(rig.handle.stats().inflated_bytes, (1024 - stay.len() as u64) * PAGE);
        prop_assert_eq!(rig.kept(all), stay);
        let outside = pages.iter().filter(|page| **page >= 2048).count() as u64;
        prop_assert_eq!(rig.handle.stats().refused_pages, outside);
        prop_assert!(!rig.driver.needs_reset());
    }
}
