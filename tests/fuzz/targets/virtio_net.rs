//! The network device under a hostile driver, with sockets for a tap.
#![no_main]

mod driver;

use driver::{Manners, devices};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((header, moves)) = driver::split(bytes) else {
        return;
    };
    let (device, mut net) = devices::net::net(header, moves);
    let manners = Manners::new(header, &*device);
    driver::drive(device, &mut net, manners, moves);
});
