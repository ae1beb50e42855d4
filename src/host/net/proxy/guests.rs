//! What guests' addresses have done so far, and whether one that refuses a client is asked once more.

use super::connection::Connection;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a guest that has not served a port yet may refuse its clients before they are told: the service starts.
const STARTING: Duration = Duration::from_secs(20);
/// How long one that serves others may refuse a client: it has no socket for it, and some are about to be free.
const FULL: Duration = Duration::from_secs(2);
/// When a guest is asked once more, first and later.
const ONCE_MORE: Duration = Duration::from_millis(50);
const SELDOM: Duration = Duration::from_millis(400);

/// A guest's address after the first answer from it.
enum Guest {
    /// It refused, from that time on.
    Refuses { since: Instant },
    /// It has served a client.
    Serves,
}

#[derive(Default)]
pub(super) struct Guests(HashMap<SocketAddr, Guest>);

/// That a connection has not come about.
pub(super) struct Refusal {
    /// Somebody is there, and does not want it.
    pub refused: bool,
    /// The guest's address has other connections.
    pub serves_others: bool,
    /// How long it may take until anybody is there.
    pub patience: Duration,
}

impl Guests {
    pub fn has_served(&mut self, guest: SocketAddr) {
        self.0.insert(guest, Guest::Serves);
    }

    /// Has a connection [try its guest again](Connection::try_again), if that is starting (a port is there before who
    /// serves it) or full (some stacks have few sockets, and refuse whom they have none for); and tells when.
    pub fn ask_again(
        &mut self,
        connection: &mut Connection,
        refusal: Refusal,
        now: Instant,
    ) -> Option<Instant> {
        let guest = connection.guest?;
        if refusal.refused {
            let first = Guest::Refuses { since: now };
            self.0.entry(guest).or_insert(first);
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        let (again, pause) = match self.0.get(&guest) {
            Some(Guest::Serves) if refusal.refused => {
                let so_far = since(*connection.refused.get_or_insert(now));
                let pause = so_far.clamp(ONCE_MORE, SELDOM);
                (refusal.serves_others && so_far < FULL, pause)
            }
            Some(Guest::Refuses { since: at }) => (since(*at) < STARTING, ONCE_MORE),
            // It starts, or is too busy to say where it is (ARP).
            Some(Guest::Serves) | None => (since(connection.heard) < refusal.patience, ONCE_MORE),
        };
        again.then(|| {
            connection.try_again(guest);
            now + pause
        })
    }
}
