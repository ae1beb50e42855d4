//! What a network of a VM's own takes.

use super::{Finding, ok, warning};
use crate::host::facts;

/// Whether taps can be made.
pub fn tap() -> Finding {
    match facts::open_tun() {
        Err(cause) => warning(
            "tap",
            format!("/dev/net/tun cannot be opened: {cause}"),
            "load the module (`modprobe tun`) or ask for access to the device",
        ),
        Ok(()) if facts::has_capability(facts::CAP_NET_ADMIN) => ok("tap", "taps can be made"),
        Ok(()) => warning(
            "tap",
            "this user may use taps that exist, and make none (no CAP_NET_ADMIN)",
            "let root make one for you: `ip tuntap add NAME mode tap user $USER`",
        ),
    }
}
