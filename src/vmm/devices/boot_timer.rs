//! Firecracker's boot timer: a guest writes 123 when it is up.

use super::{Action, Device};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// The value that counts (Firecracker's `MAGIC_VALUE_SIGNAL_GUEST_BOOT_COMPLETE`).
const READY: u8 = 123;

/// When the guest said that it was up, if it has.
pub type Ready = Arc<OnceLock<Instant>>;

/// One register; the first signal counts.
#[derive(Debug)]
pub struct BootTimer(Ready);

impl BootTimer {
    /// Size of its registers, in bytes.
    pub const BYTES: u64 = 8;

    /// A timer that reports into `ready`.
    pub fn new(ready: Ready) -> Self {
        Self(ready)
    }
}

impl Device for BootTimer {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        if offset == 0 && data.first() == Some(&READY) {
            self.0.get_or_init(Instant::now);
        }
        Action::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_counts() {
        let ready = Ready::default();
        let mut timer = BootTimer::new(ready.clone());
        let _ = timer.write(0, &[122]);
        let _ = timer.write(4, &[READY]);
        assert!(ready.get().is_none());
        let _ = timer.write(0, &[READY, 0, 0, 0]);
        let first = *ready.get().unwrap();
        let _ = timer.write(0, &[READY]);
        assert_eq!(*ready.get().unwrap(), first);
    }
}
