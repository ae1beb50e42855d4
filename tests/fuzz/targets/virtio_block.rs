//! The block device under a hostile driver, on a real file.
#![no_main]

mod driver;

use driver::{Manners, devices};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((header, moves)) = driver::split(bytes) else {
        return;
    };
    let (device, mut block) = devices::block::block(header);
    let manners = Manners::new(header, &*device);
    driver::drive(device, &mut block, manners, moves);
});
