//! Any sequence of requests leaves the disk as a plain array would be.

use super::*;
use crate::devices::virtio::fake_driver::NEXT;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Read(u64, u32),
    Write(u64, u32, u8),
    Flush,
    Zero(u64, u32, bool),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let place = (0..DISK_SECTORS, 1..64u32);
    let place =
        place.prop_map(|(sector, count)| (sector, count.min((DISK_SECTORS - sector) as u32)));
    prop_oneof![
        4 => place.clone().prop_map(|(sector, count)| Step::Read(sector, count)),
        4 => (place.clone(), any::<u8>()).prop_map(|((sector, count), byte)| Step::Write(sector, count, byte)),
        1 => Just(Step::Flush),
        2 => (place, any::<bool>()).prop_map(|((sector, count), unmap)| Step::Zero(sector, count, unmap)),
        1 => Just(Step::Reset),
    ]
}

fn run(rig: &mut Rig, steps: &[Step]) {
    let mut model = pattern();
    let bytes = |sector: u64, count: u32| {
        sector as usize * SECTOR..(sector as usize + count as usize) * SECTOR
    };
    for step in steps {
        match *step {
            Step::Read(sector, count) => {
                assert_eq!(rig.read(sector, count), model[bytes(sector, count)])
            }
            Step::Write(sector, count, byte) => {
                let data: Vec<u8> = (0..count as usize * SECTOR)
                    .map(|i| byte ^ (i / 5) as u8)
                    .collect();
                rig.write(sector, &data);
                model[bytes(sector, count)].copy_from_slice(&data);
            }
            Step::Flush => assert_eq!(rig.status(FLUSH, 0, &[], 0), OK),
            Step::Zero(sector, count, unmap) => {
                assert_eq!(rig.ranged(WRITE_ZEROES, sector, count, unmap.into()), OK);
                model[bytes(sector, count)].fill(0);
            }
            Step::Reset => {
                rig.driver.reset();
                rig.driver.start(!(1 << 29));
            }
        }
    }
    assert!(rig.read(0, 2048) == model, "{steps:?}");
    if let Some(image) = &rig.image {
        assert!(std::fs::read(image.path()).unwrap() == model, "{steps:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_disk_is_an_array(steps in prop::collection::vec(step(), 1..40)) {
        for mut rig in Rig::each(|_| ()) {
            run(&mut rig, &steps);
        }
    }

    #[test]
    fn past_the_page_cache_too(steps in prop::collection::vec(step(), 1..20)) {
        // Guest buffers are aligned to 512 bytes here, sectors to 512: some requests go direct, some cannot.
        for mut rig in Rig::each(|disk| disk.direct = true) {
            run(&mut rig, &steps);
        }
    }
}

/// Many reads in flight and a reset in the middle: once the reset is over, the host writes no more into the
/// guest's memory.
#[test]
fn a_reset_waits_for_what_is_in_flight() {
    const BYTES: u32 = 0x4_0000;
    for mut rig in Rig::each(|disk| disk.direct = true) {
        for round in 0..10 {
            rig.header(IN, 0);
            for head in 0..5 {
                let place = INCOMING + u64::from(head) * u64::from(BYTES + 4096);
                rig.driver
                    .describe(0, 3 * head, (HEADER, 16, NEXT, 3 * head + 1));
                rig.driver
                    .describe(0, 3 * head + 1, (place, BYTES, NEXT | WRITE, 3 * head + 2));
                rig.driver
                    .describe(0, 3 * head + 2, (place + u64::from(BYTES), 1, WRITE, 0));
            }
            rig.driver.offer_all(0, &[0, 3, 6, 9, 12]);
            if round % 2 == 0 {
                rig.driver.used(0);
            }
            rig.driver.reset();
            let all = 5 * (BYTES as usize + 4096);
            rig.driver.put(INCOMING, &vec![0xcc; all]);
            std::thread::sleep(std::time::Duration::from_millis(2));
            assert!(
                rig.driver
                    .bytes(INCOMING, all)
                    .iter()
                    .all(|byte| *byte == 0xcc)
            );
            rig.driver.start(!(1 << 29));
        }
        assert_eq!(rig.read(5, 1), pattern()[5 * 512..6 * 512]);
    }
}
