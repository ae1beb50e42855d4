//! Servers that were asked for a client who is gone, and have not answered yet.
//!
//! A connection that is given up before its server has answered is not gone for that server: what it was asked is on
//! its way, and it will have a connection, or half of one, until it hears otherwise. Were the client's seat free at
//! once, clients who come and go could fill a guest with as many as the host can send it. So the seat is taken until
//! there is an answer, behind which the end follows on the same way, and the server never has more connections than
//! there are seats.

use super::source::Source;
use rustix::net::sockopt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long an answer is waited for. Then TCP would ask once more (RFC 6298, 2.1): what was asked is lost, or nobody is
/// there yet.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Settling {
    /// Whatever comes of it is reset.
    server: OwnedFd,
    pub source: Source,
    pub guest: Option<SocketAddr>,
    /// When the seat is free at the latest.
    pub until: Instant,
}

impl Settling {
    /// For a server that was asked `at` some time; none if that is long ago.
    pub fn new(
        server: OwnedFd,
        source: Source,
        guest: Option<SocketAddr>,
        at: Instant,
        now: Instant,
    ) -> Option<Self> {
        let until = at + PATIENCE;
        (now < until).then_some(Self {
            server,
            source,
            guest,
            until,
        })
    }

    pub fn is_over(&self) -> bool {
        has_answered(&self.server)
    }
}

/// Is the socket connected, or has that failed?
pub(super) fn has_answered(server: &OwnedFd) -> bool {
    !matches!(sockopt::socket_error(server), Ok(Ok(()))) || rustix::net::getpeername(server).is_ok()
}
