//! What a running VM tells, and what it can be asked: messages of a socket that keeps their bounds (`SOCK_SEQPACKET`).
//!
//! Up, towards whoever wants to know, go [`Report`]s; down go [`Request`]s. The same messages go between a VM's process
//! and its supervisor, and between the supervisor and whoever has started it.
//!
//! A guest that has taken its VM's process over writes what it likes. So a message is [bounded](LONGEST), it is read into
//! memory that does not depend on what it says, what it says is checked as a whole, and text has no control characters: it
//! may be printed. Of what comes too fast for its reader the newest counts.
//!
//! # The encoding
//!
//! Numbers are little-endian. A message begins with [`VERSION`] and its kind, a byte each; what follows is for the kind to
//! say, and nothing is behind it. Text has its length before it, in two bytes. What may be there or not has a byte before it,
//! 1 or 0. A reader skips messages whose kind it does not know, so kinds can be added; a message that changes takes a new
//! version.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod agent;
mod channel;
mod report;
mod request;
#[cfg(test)]
mod tests;
mod wire;

pub use channel::{Channel, Received};
pub use report::Report;
pub use request::{Order, Request};
pub use wire::Malformed;

/// Of the encoding.
pub const VERSION: u8 = 1;

/// No message has more bytes. It is more than any VM has to tell, and less than a socket takes at once.
pub const LONGEST: usize = 128 << 10;
