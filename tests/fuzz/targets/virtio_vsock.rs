//! The socket device under a hostile driver, with programs of the host that come, speak, fall silent and go.
#![no_main]

mod driver;

use driver::{Manners, devices};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((header, moves)) = driver::split(bytes) else {
        return;
    };
    let (device, mut vsock) = devices::vsock::vsock(header);
    let manners = Manners::new(header, &*device);
    driver::drive(device, &mut vsock, manners, moves);
});
