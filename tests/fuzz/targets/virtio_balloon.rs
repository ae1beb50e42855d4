//! The balloon under a hostile driver that can give all of its RAM away, rings and all.
#![no_main]

mod driver;

use kvmlet::MemorySize;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|bytes: &[u8]| {
    let (device, handle) = driver::devices::balloon();
    // The last byte is what the host does meanwhile.
    let host = bytes.last().copied().unwrap_or_default();
    let target = u64::from(host >> 1).mib();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            assert_eq!(handle.set_target(target).is_ok(), target <= 48.mib());
            if host & 1 == 1 {
                let _ = handle.ask_guest(Duration::from_micros(100));
            }
        });
        driver::drive(Box::new(device), bytes);
        // All of it: what a thread on its way out still has would be taken for a leak.
        other.join().expect("the host's side");
    });
    let stats = handle.stats();
    assert_eq!(stats.actual_bytes, 0, "a reset empties the balloon");
    assert!(stats.reported_bytes % 4096 == 0 && stats.inflated_bytes % 4096 == 0);
});
