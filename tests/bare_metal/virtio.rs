//! virtio devices driven by someone else's drivers (the `virtio-drivers` crate), at native speed.

use crate::harness::{Guest, Test};
use kvmlet::ExitReason;

pub const TESTS: &[Test] = &[("virtio_rng_gives_entropy", rng)];

/// The entropy source has the first slot.
const RNG: &str = "mmio=0xd0001000";

fn success(guest: Guest) -> String {
    let (reason, output) = guest.finish();
    assert_eq!(reason, ExitReason::Shutdown { code: 0 }, "{output}");
    output
}

fn rng() {
    success(Guest::boot_with("virtio_rng", |c| c.cmdline(RNG)));
}
