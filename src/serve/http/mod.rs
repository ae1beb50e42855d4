//! HTTP/1.1 (RFC 9112) over a Unix socket, on a loop that waits for nobody: requests with a body of known length, one after the
//! other on a connection, and answers in JSON. All that a client can make this process hold is bounded.

mod along;
mod answer;
mod connection;
mod manner;
mod percent;
mod request;
mod server;

pub use along::Along;
pub use answer::{Answer, JSON};
pub use kvmlet_sys::acceptor::Peers;
pub use manner::Manner;
pub use percent::decoded;
pub use request::{Coming, LONGEST_HEAD, Method, NOTHING_COMES, Parsed, Request, parse_with};
pub use server::{ClientId, Server};
