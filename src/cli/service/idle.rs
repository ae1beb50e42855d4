//! Whether an instance can be suspended by itself, and woken.

use crate::Failed;
use kvmlet_spec::Net;

/// By these interfaces it is seen that nobody uses it, and a packet for one of them wakes it.
pub(super) fn check(nets: &[Net]) -> Result<(), Failed> {
    let (what, help) = match nets {
        [] => (
            "what is suspended by itself goes on when a packet comes for it, and it has no interface",
            "publish a port (`-p`), or leave out --idle",
        ),
        nets if nets.iter().any(|net| net.vhost) => (
            "of an interface that the host's kernel serves (vhost) nobody can tell whether it is used",
            "leave out `vhost`, or --idle",
        ),
        _ => return Ok(()),
    };
    Err(Failed::new(what).help(help))
}
