//! What a guest tells of its memory, and when it is asked.

use super::*;
use crate::config::GuestStatistics;
use crate::devices::virtio::balloon::statistics::BUFFER_BYTES;

const PLACE: u64 = BUFFERS + 0x1000;

fn entry(tag: u16, value: u64) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

impl Rig {
    /// A driver's own first move, and its answer to each question: a buffer of entries.
    fn tell(&mut self, bytes: &[u8]) {
        self.driver.put(PLACE, bytes);
        self.driver
            .send(STATISTICS, &[(PLACE, bytes.len() as u32, 0)]);
    }

    /// Asks, and answers as a driver does: when its buffer comes back, with `bytes` in it.
    fn ask(&mut self, bytes: &[u8]) -> GuestStatistics {
        let handle = self.handle.clone();
        let asker = std::thread::spawn(move || handle.ask_guest(PATIENCE));
        assert_eq!(self.driver.used(STATISTICS), (0, 0));
        self.tell(bytes);
        asker.join().unwrap().unwrap()
    }

    fn guest(&self) -> Option<GuestStatistics> {
        self.handle.stats().guest
    }
}

#[test]
fn the_first_buffer_is_read_and_kept() {
    let mut rig = Rig::ready("");
    assert_eq!(rig.guest(), None);
    rig.tell(&[entry(4, 1 << 20), entry(5, 64 << 20)].concat());
    eventually("the first statistics are there", || rig.guest().is_some());
    let told = rig.guest().unwrap();
    assert_eq!(
        (told.free_bytes, told.total_bytes),
        (Some(1 << 20), Some(64 << 20))
    );
    assert_eq!(told.minor_faults, None);
    assert!(rig.handle.stats().guest_age_ms.is_some());
    // Nobody has asked: the buffer stays with the device.
    rig.expect_alive();
    assert_eq!(rig.driver.poll_used(STATISTICS), None);
}

#[test]
fn each_question_is_one_exchange() {
    let mut rig = Rig::ready("");
    rig.tell(&[]);
    eventually("the buffer is there", || rig.guest().is_some());
    for round in 1..5 {
        let told = rig.ask(&entry(3, round));
        assert_eq!(told.minor_faults, Some(round));
        assert_eq!(rig.guest(), Some(told));
        assert_eq!(rig.driver.poll_used(STATISTICS), None);
    }
    // Several at a time get the same answer.
    let askers: Vec<_> = (0..4)
        .map(|_| {
            let handle = rig.handle.clone();
            std::thread::spawn(move || handle.ask_guest(PATIENCE).unwrap())
        })
        .collect();
    let mut round = 100;
    while askers.iter().any(|asker| !asker.is_finished()) {
        if rig.driver.poll_used(STATISTICS).is_some() {
            rig.tell(&entry(10, round));
            round += 1;
        }
        std::thread::yield_now();
    }
    for asker in askers {
        assert!(asker.join().unwrap().oom_kills >= Some(100));
    }
}

#[test]
fn every_tag_has_its_number() {
    let mut rig = Rig::ready("");
    let all: Vec<u8> = (0..16)
        .rev()
        .flat_map(|tag| entry(tag, 1000 + u64::from(tag)))
        .collect();
    rig.tell(&all);
    eventually("the statistics are there", || rig.guest().is_some());
    let mut expected = GuestStatistics::default();
    expected.swapped_in_bytes = Some(1000);
    expected.swapped_out_bytes = Some(1001);
    expected.major_faults = Some(1002);
    expected.minor_faults = Some(1003);
    expected.free_bytes = Some(1004);
    expected.total_bytes = Some(1005);
    expected.available_bytes = Some(1006);
    expected.cache_bytes = Some(1007);
    expected.huge_pages_reserved = Some(1008);
    expected.huge_pages_failed = Some(1009);
    expected.oom_kills = Some(1010);
    expected.allocation_stalls = Some(1011);
    expected.scanned_in_background_bytes = Some(1012);
    expected.scanned_directly_bytes = Some(1013);
    expected.reclaimed_in_background_bytes = Some(1014);
    expected.reclaimed_directly_bytes = Some(1015);
    assert_eq!(rig.guest(), Some(expected));
}

#[test]
fn odd_buffers_are_read_as_far_as_they_go() {
    let mut rig = Rig::ready("");
    rig.tell(&[]);
    eventually("the buffer is there", || rig.guest().is_some());
    let only = |field: fn(&mut GuestStatistics)| {
        let mut statistics = GuestStatistics::default();
        field(&mut statistics);
        statistics
    };
    let free = only(|s| s.free_bytes = Some(7));
    for (bytes, expected) in [
        // Unknown tags, also between known ones.
        ([entry(16, 1), entry(4, 7), entry(0xffff, 2)].concat(), free),
        // Half an entry behind.
        ([entry(4, 7), entry(5, 9)[..9].to_vec()].concat(), free),
        (vec![4], GuestStatistics::default()),
        // The last of two counts.
        ([entry(4, 6), entry(4, 7)].concat(), free),
        (entry(4, u64::MAX), only(|s| s.free_bytes = Some(u64::MAX))),
        // More than anybody has to say.
        (
            [vec![0xff; BUFFER_BYTES], entry(4, 7)].concat(),
            GuestStatistics::default(),
        ),
        (entry(4, 7).repeat(6000), free),
    ] {
        assert_eq!(rig.ask(&bytes), expected);
    }
    // Nothing to read at all, only to write.
    let handle = rig.handle.clone();
    let asker = std::thread::spawn(move || handle.ask_guest(PATIENCE).unwrap());
    rig.driver.used(STATISTICS);
    rig.driver.send(STATISTICS, &[(PLACE, 10, WRITE)]);
    assert_eq!(asker.join().unwrap(), GuestStatistics::default());
    rig.expect_alive();
}

#[test]
fn a_second_buffer_waits_for_its_turn() {
    let mut rig = Rig::ready("");
    rig.driver.put(PLACE, &entry(4, 1));
    rig.driver.put(PLACE + 16, &entry(4, 2));
    rig.driver.describe(STATISTICS, 0, (PLACE, 10, 0, 0));
    rig.driver.describe(STATISTICS, 1, (PLACE + 16, 10, 0, 0));
    rig.driver.offer_all(STATISTICS, &[0, 1]);
    eventually("the first is read", || rig.guest().is_some());
    let free = |statistics: GuestStatistics| statistics.free_bytes;
    assert_eq!(free(rig.guest().unwrap()), Some(1));
    assert_eq!(free(rig.handle.ask_guest(PATIENCE).unwrap()), Some(2));
    assert_eq!(rig.driver.used(STATISTICS), (0, 0));
    rig.expect_alive();
}

#[test]
fn who_asks_in_vain_is_told() {
    let mut rig = Rig::untouched("");
    let ask = |rig: &Rig, patience| rig.handle.ask_guest(patience);
    assert!(matches!(ask(&rig, PATIENCE), Err(Error::NoDriver)));
    rig.driver.start(!(1 << 29));
    rig.expect_alive();
    // A driver that never gave a buffer, and one that does not give it back.
    let error = ask(&rig, Duration::from_millis(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the guest has not told its statistics within 1 ms"
    );
    rig.tell(&entry(4, 5));
    eventually("the buffer is there", || rig.guest().is_some());
    assert!(matches!(
        ask(&rig, Duration::from_millis(1)),
        Err(Error::NoAnswer { .. })
    ));
    rig.driver.used(STATISTICS);
    // A reset ends the wait.
    let handle = rig.handle.clone();
    let asker = std::thread::spawn(move || handle.ask_guest(PATIENCE));
    rig.driver.reset();
    assert!(matches!(asker.join().unwrap(), Err(Error::NoDriver)));
    assert_eq!(
        rig.guest().unwrap().free_bytes,
        Some(5),
        "what was told is still known"
    );
}
