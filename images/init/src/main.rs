//! The first process of a kvmlet guest.
fn main() {}
