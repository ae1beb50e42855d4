//! Whose a client is, for shares to be fair: a user of this host, or a network elsewhere.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{netlink, recv, send, socket_with};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// Whose a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// A user of this host.
    User(u32),
    /// Some user of this host.
    Loopback,
    /// A machine elsewhere.
    Host(Ipv4Addr),
    /// A network elsewhere: whoever has one address of IPv6 has the 64 bits behind the prefix.
    Network([u8; 8]),
}

impl Source {
    fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            IpAddr::V4(address) => Self::Host(address),
            IpAddr::V6(address) => {
                let mut prefix = [0; 8];
                prefix.copy_from_slice(&address.octets()[..8]);
                Self::Network(prefix)
            }
        }
    }
}

/// Netlink's header, and what the kernel is asked: a `inet_diag_req_v2` (sock_diag(7)).
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
/// Where the answer, an `inet_diag_msg`, has the user's number.
const USER_AT: usize = HEADER + 64;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const ANY: [u8; 4] = [0xff; 4];

/// Knows which user of this host has a socket, where the kernel tells.
pub(super) struct Users(Option<OwnedFd>);

impl Users {
    pub fn new() -> Self {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
        let protocol = Some(netlink::SOCK_DIAG);
        // The kernel answers before sending returns, so receiving does not have to wait.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Self(socket_with(family, kind, flags, protocol).ok())
    }

    /// Whose a client is that has come from `peer` to `here`, an address of this host. (Clients of this host have
    /// the same address, unless they insist on another.)
    pub fn source(&self, protocol: libc::c_int, peer: SocketAddr, here: SocketAddr) -> Source {
        let is_local = peer.ip().is_loopback() || peer.ip() == here.ip();
        is_local
            .then(|| self.user(protocol, peer, here))
            .flatten()
            .map_or_else(|| Source::of_address(peer.ip()), Source::User)
    }

    /// The user who has the socket at `peer`.
    fn user(&self, protocol: libc::c_int, peer: SocketAddr, here: SocketAddr) -> Option<u32> {
        let socket = self.0.as_ref()?;
        send(socket, &request(protocol, peer, here), SendFlags::empty()).ok()?;
        let mut answer = [0; 1024];
        let (bytes, _) = recv(socket, &mut answer[..], RecvFlags::empty()).ok()?;
        let answer = &answer[..bytes];
        let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
        let user = answer.get(USER_AT..USER_AT + 4)?.try_into().ok()?;
        (kind == SOCK_DIAG_BY_FAMILY).then(|| u32::from_ne_bytes(user))
    }
}

fn request(protocol: libc::c_int, peer: SocketAddr, here: SocketAddr) -> [u8; REQUEST] {
    // "src and dst are swapped for historical reasons", says the kernel of its udp_diag.
    let (from, to) = match protocol {
        libc::IPPROTO_UDP => (here, peer),
        _ => (peer, here),
    };
    let family = match peer {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let mut request = [0; REQUEST];
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(REQUEST as u32).to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &NLM_F_REQUEST.to_ne_bytes());
    put(HEADER, &[family as u8, protocol as u8]);
    // In all states.
    put(HEADER + 4, &ANY);
    put(HEADER + 8, &from.port().to_be_bytes());
    put(HEADER + 10, &to.port().to_be_bytes());
    for (at, address) in [(12, from), (28, to)] {
        match address.ip() {
            IpAddr::V4(address) => put(HEADER + at, &address.octets()),
            IpAddr::V6(address) => put(HEADER + at, &address.octets()),
        }
    }
    // At any interface, and without a cookie to compare.
    put(HEADER + 48, &ANY);
    put(HEADER + 52, &ANY);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn users_of_this_host_are_told_by_number() {
        let users = Users::new();
        let me = Source::User(rustix::process::geteuid().as_raw());
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            let here = accepted.local_addr().unwrap();
            assert_eq!(users.source(libc::IPPROTO_TCP, peer, here), me, "{address}");
            let wildcard = if here.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let client = UdpSocket::bind(wildcard).unwrap();
            let server = UdpSocket::bind(address).unwrap();
            let peer = SocketAddr::new(here.ip(), client.local_addr().unwrap().port());
            let here = server.local_addr().unwrap();
            assert_eq!(users.source(libc::IPPROTO_UDP, peer, here), me, "{address}");
        }
        // The kernel knows of no such socket.
        let nobody: SocketAddr = "127.0.0.9:1".parse().unwrap();
        let here: SocketAddr = "127.0.0.1:2".parse().unwrap();
        assert_eq!(
            users.source(libc::IPPROTO_TCP, nobody, here),
            Source::Loopback
        );
    }

    #[test]
    fn machines_elsewhere_are_told_by_address() {
        let users = Users(None);
        let here: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let of = |peer: &str| {
            let peer = SocketAddr::new(peer.parse().unwrap(), 1);
            users.source(libc::IPPROTO_TCP, peer, here)
        };
        assert_eq!(of("192.0.2.7"), Source::Host([192, 0, 2, 7].into()));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("127.0.0.5"), of("::1"));
    }
}
