//! What is wanted of a VM's process, and what becomes of it.

use kvmlet_sys::process::Ended;
use std::time::Duration;

/// Who wants a VM's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Whoever sent this signal.
    Signal(libc::c_int),
    /// Whoever pressed the escape key.
    Escape,
    /// Whoever has started this process.
    Order,
    /// Nobody: who has its memory is gone.
    Unfed,
}

/// What has become of a VM's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub ended: Ended,
    /// Who wanted its end.
    pub wish: Option<Wish>,
    /// It was killed for that: it could not end in time, or had not started.
    pub in_time: bool,
}

/// What a VM may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long its guest has to end once it is asked.
    pub stop_timeout: Duration,
    /// The most that a file has which it is saved in, in bytes.
    pub most_saved: u64,
}
