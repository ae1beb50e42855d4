//! HTTP/1.1 (RFC 9112) over a Unix socket, on a loop that waits for nobody: requests with a body of known length, one after the
//! other on a connection, and answers in JSON. All that a client can make this process hold is bounded.

mod answer;
mod connection;
mod request;
mod server;

pub use answer::Answer;
pub use request::{Method, Request};
pub use server::{ClientId, Server};
