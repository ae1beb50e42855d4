//! How servers differ.

use super::{Answer, Method};
use kvmlet_sys::acceptor::Peers;

/// How a server answers what is no request that anybody takes.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// What it calls itself.
    pub name: &'static str,
    /// Programs that are served at a time.
    pub seats: usize,
    /// The longest body.
    pub longest_body: usize,
    /// Connections of HTTP/1.0 go on after an answer, as if their clients had asked for that.
    pub old_go_on: bool,
    /// Who may connect: whoever may write to the socket's file, or only its user's programs.
    pub peers: Peers,
    /// Of which requests a long body is taken as it comes, by [`Server::part`](super::Server::part).
    pub comes: fn(Method, &str) -> bool,
    /// Descriptors that may come along with a request. Others are closed as they come.
    pub descriptors: usize,
    /// What somebody is told who sends what is not understood, or is one too many (503).
    pub refuse: fn(u16, &str) -> Answer,
}
