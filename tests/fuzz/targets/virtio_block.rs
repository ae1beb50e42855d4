//! The block device under a hostile driver, on a real file.
#![no_main]

mod driver;

use driver::devices;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The first byte chooses the back end and the cache as well.
    let choice = bytes.first().map_or(0, |byte| byte >> 3);
    let io = if choice & 1 == 0 { "sync" } else { "auto" };
    let cache = if choice & 2 == 0 {
        "writeback"
    } else {
        "writethrough"
    };
    driver::drive(devices::block(&format!("io={io},cache={cache}")), bytes);
});
