//! The network device under a hostile driver, with a socket for a tap that always has frames waiting.
#![no_main]

mod driver;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| driver::drive(driver::devices::net(bytes), bytes));
