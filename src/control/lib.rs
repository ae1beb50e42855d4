//! What a running VM tells, and what it can be asked: messages, and the sockets that they go through.
//!
//! Up, towards whoever wants to know, go [`Report`]s; down go [`Request`]s. The same messages go between a VM's process
//! and its supervisor, between the supervisor and whoever has started it, both by a [`Channel`], and between the supervisor and
//! whoever connects to the VM's control socket.
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
//!
//! # The control socket
//!
//! It is a stream (`SOCK_STREAM`), which keeps no bounds: before each message is its length, in [four bytes](Frame). Whoever
//! connects sends a [`Request`], and reads [`Report`]s up to the [`Answer`](Report::Answer) that has its number; then comes the
//! next request. Who [watches](Order::Watch) is told each [`State`] and the [end](Report::Ended) as they come. A request is
//! whole within five seconds, and so is the reading of what was answered: others are closed. The other end is of the
//! supervisor's user, or root.
//!
//! A connection that begins with `GET /metrics` is answered in HTTP, with [statistics](Order::Stats) as OpenMetrics text.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod address;
pub mod agent;
mod channel;
mod connection;
mod frame;
mod passing;
mod pool;
mod report;
mod request;
mod state;
#[cfg(test)]
mod tests;
mod wire;

pub use address::connected;
pub use channel::{Channel, Received};
pub use connection::{Connection, ConnectionError, Saving, UNANSWERED};
pub use frame::{Frame, framed};
pub use passing::{MOST_DESCRIPTORS, receive_all, send_with};
pub use pool::{
    POOL_BYTES, POOL_DESCRIPTORS, Pool, PoolAnswer, PoolError, PoolRequest, PoolStatus, Taken,
};
pub use report::Report;
pub use request::{Limited, Order, REQUEST_BYTES, Request};
pub use state::State;
pub use wire::Malformed;

/// Of the encoding.
pub const VERSION: u8 = 1;

/// No message has more bytes. It is more than any VM has to tell, and less than a socket takes at once.
pub const LONGEST: usize = 128 << 10;
