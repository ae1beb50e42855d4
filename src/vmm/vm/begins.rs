//! What the vCPUs of a machine begin with.

use crate::arch::x86_64::boot::BootState;
use crate::snapshot::Saved;

pub(super) enum Begins {
    /// The first of them with this.
    Booted(BootState),
    /// All as they were.
    Resumed(Box<Saved>),
}
