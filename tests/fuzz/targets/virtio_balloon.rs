//! The balloon under a hostile driver that can give all of its RAM away, rings and all.
#![no_main]

mod driver;

use driver::{Manners, devices};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((header, moves)) = driver::split(bytes) else {
        return;
    };
    let (device, mut balloon) = devices::balloon::balloon(header);
    let manners = Manners::new(header, &*device);
    driver::drive(device, &mut balloon, manners, moves);
});
