//! What a guest finds at an address of its own (Firecracker's MMDS): data that the host gives it, by HTTP.
//!
//! TCP and HTTP with a guest are a process's of their own, which has nothing but sockets that the guest's frames come
//! through, and the data. A guest that takes it over has what it could ask for.

mod answers;
mod connection;
mod counted;
mod process;
mod service;
mod stack;
mod store;
mod tokens;
mod wire;

pub use answers::{Answers, Config, Version};
pub use counted::Counted;
pub use process::{WORD, run};
pub use service::Service;
pub use stack::Stack;
pub use store::{Store, Unstored};

#[cfg(test)]
mod tests;
