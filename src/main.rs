//! The `kvmlet` command.
fn main() {}
