//! Ring 3: Linux guests, through the command line, one at a time.
fn main() {}
