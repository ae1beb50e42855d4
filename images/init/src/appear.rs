//! Waiting for devices: the kernel may find them only after it has started init.

use crate::console;
use crate::sys::{self, Errno};

/// How long a device may take, in milliseconds.
const TIMEOUT_MS: u64 = 5000;
/// After how long init says what it is waiting for.
const PATIENCE_MS: u64 = 1000;
/// Between two looks. There is no event to wait for that devices and interfaces have in common.
const PAUSE_MS: u32 = 10;

/// Whether an error says that a device is not there, or not yet.
pub fn is_absent(error: Errno) -> bool {
    matches!(error, Errno::ENOENT | Errno::ENXIO | Errno::ENODEV)
}

/// Repeats `attempt` until the device that it needs, `name`, has appeared or took too long.
pub fn wait_for<T>(name: &str, attempt: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    let mut result = attempt();
    if !matches!(result, Err(error) if is_absent(error)) {
        return result;
    }
    let start = sys::monotonic_ms();
    let mut said = false;
    loop {
        let waited = sys::monotonic_ms() - start;
        match result {
            Err(error) if is_absent(error) && waited < TIMEOUT_MS => {}
            other => return other,
        }
        if waited >= PATIENCE_MS && !said {
            console::say(format_args!("waiting for {name} to appear"));
            said = true;
        }
        sys::sleep_ms(PAUSE_MS);
        result = attempt();
    }
}
