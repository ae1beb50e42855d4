//! How long tests wait for what should happen: unit tests here, and the harness of the other rings, which has this file
//! as well.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// An environment variable with a number that all of it is multiplied with, on a host that is slower than any that
/// kvmlet is for: the second host, whose processors are emulated, sets it.
pub const FACTOR: &str = "KVMLET_TEST_PATIENCE";

/// What something may take here that may take `usual` on any real host.
pub fn patience(usual: Duration) -> Duration {
    static HERE: OnceLock<u32> = OnceLock::new();
    let factor = HERE.get_or_init(|| {
        let text = std::env::var(FACTOR).unwrap_or_else(|_| "1".into());
        text.parse()
            .unwrap_or_else(|_| panic!("{FACTOR} is a whole number, not `{text}`"))
    });
    usual * *factor
}

/// [`patience`] of this many seconds.
pub fn seconds(usual: u64) -> Duration {
    patience(Duration::from_secs(usual))
}

/// Waits until something that others do has happened: counters, for example, are kept by workers, which count what
/// they did just after it shows.
#[track_caller]
pub fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + seconds(20);
    while !happened() {
        assert!(Instant::now() < deadline, "it never happened: {what}");
        // Not a mere yield: it would take half the time of what is waited for, where all share one processor.
        std::thread::sleep(Duration::from_micros(200));
    }
}
