//! The transport and the entropy device under a hostile driver.
#![no_main]

mod driver;

use kvmlet::config::RateLimit;
use kvmlet::devices::virtio::rng::Rng;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| driver::drive(Box::new(Rng::with_limit(RateLimit::NONE).unwrap()), bytes));
