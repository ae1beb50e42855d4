//! How much is served at a time, and for how long: as much as this process has descriptors for.

use super::connection::Connection;
use std::time::Duration;

/// What is neither a client's nor a question's: events, what tells users, a list of name servers, a client that has
/// just come, a server that is tried in place of another.
const OWN: usize = 10;

/// The most connections, clients and questions at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seats {
    /// Connections to published ports, and clients that may wait for one of those to end.
    pub tcp: usize,
    pub waiting: usize,
    /// Clients of published UDP ports.
    pub udp: usize,
    /// Connections of the guest that ask for names, and those that may wait.
    pub dns_tcp: usize,
    pub dns_waiting: usize,
    /// Its questions by UDP.
    pub dns: usize,
}

impl Seats {
    const MOST: Self = Self {
        tcp: 256,
        waiting: 64,
        udp: 128,
        dns_tcp: 16,
        dns_waiting: 4,
        dns: 64,
    };
    /// With fewer there is no use in it.
    const LEAST: Self = Self {
        tcp: 8,
        waiting: 4,
        udp: 4,
        dns_tcp: 1,
        dns_waiting: 1,
        dns: 8,
    };

    /// Those that make sense for what a guest publishes: fewest and most.
    pub fn range(tcp: bool, udp: bool) -> [Self; 2] {
        [Self::LEAST, Self::MOST].map(|seats| Self {
            tcp: if tcp { seats.tcp } else { 0 },
            waiting: if tcp { seats.waiting } else { 0 },
            udp: if udp { seats.udp } else { 0 },
            ..seats
        })
    }

    /// How many descriptors they take when all are taken.
    pub fn descriptors(self) -> usize {
        let pairs = 2 * (self.tcp + self.dns_tcp);
        OWN + pairs + self.waiting + self.udp + self.dns_waiting + self.dns
    }

    /// As many as there are descriptors for, between those two.
    pub fn within([least, most]: [Self; 2], descriptors: usize) -> Self {
        let (from, to) = (least.descriptors(), most.descriptors());
        let more = descriptors.min(to).saturating_sub(from);
        // A part of what the most has beyond the least, rounded down.
        let part = |least: usize, most: usize| least + (most - least) * more / (to - from).max(1);
        Self {
            tcp: part(least.tcp, most.tcp),
            waiting: part(least.waiting, most.waiting),
            udp: part(least.udp, most.udp),
            dns_tcp: part(least.dns_tcp, most.dns_tcp),
            dns_waiting: part(least.dns_waiting, most.dns_waiting),
            dns: part(least.dns, most.dns),
        }
    }
}

/// How many TCP connections are proxied, and for how long.
pub struct Rules {
    /// The most connections at a time.
    pub most: usize,
    /// The most clients that may wait for one of those to end.
    pub waiting: usize,
    /// How long a server may take to be reached.
    pub connecting: Duration,
    /// How long a connection may be silent after one side has ended.
    pub half_closed: Duration,
    /// How long any connection may be silent.
    pub silent: Option<Duration>,
}

impl Rules {
    /// Clients of published ports may be silent until others need their seats: some wait for hours for something to
    /// happen, and those that have vanished are found by TCP's keep-alive.
    pub fn published(seats: Seats) -> Self {
        Self {
            most: seats.tcp,
            waiting: seats.waiting,
            connecting: Duration::from_secs(30),
            half_closed: Duration::from_secs(300),
            silent: None,
        }
    }

    /// RFC 7766, 6.2.3: seconds.
    pub fn dns(seats: Seats) -> Self {
        Self {
            most: seats.dns_tcp,
            waiting: seats.dns_waiting,
            connecting: Duration::from_secs(2),
            half_closed: Duration::from_secs(10),
            silent: Some(Duration::from_secs(10)),
        }
    }

    /// How long a connection may be as it is.
    pub fn patience(&self, connection: &Connection) -> Option<Duration> {
        match () {
            () if !connection.is_connected() => Some(self.connecting),
            () if connection.is_half_closed() => Some(self.half_closed),
            () => self.silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_fit_into_what_there_is() {
        for (tcp, udp) in [(true, true), (true, false), (false, true), (false, false)] {
            let range = Seats::range(tcp, udp);
            let [least, most] = range.map(Seats::descriptors);
            assert_eq!(Seats::within(range, least), range[0]);
            assert_eq!(Seats::within(range, most + 1000), range[1]);
            for descriptors in least..most {
                let seats = Seats::within(range, descriptors);
                assert!(
                    seats.descriptors() <= descriptors,
                    "{descriptors}: {seats:?}"
                );
                assert!(
                    seats.descriptors() + 8 > descriptors,
                    "{descriptors}: {seats:?}"
                );
            }
        }
        // What is not published takes none.
        let [_, most] = Seats::range(false, false);
        assert_eq!((most.tcp, most.waiting, most.udp), (0, 0, 0));
    }
}
