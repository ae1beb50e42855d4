//! What the CPU demands before and while a guest runs on it.

pub mod x86_64;
