//! Whose a client is, for shares to be fair: a user of this host, or a network elsewhere.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{netlink, recv, send, socket_with};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Whose a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// A user of this host.
    User(u32),
    /// Some user of this host, where the kernel does not tell users.
    Loopback,
    /// Whoever it was of this host has closed its socket already, and no answer reaches it.
    Gone,
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
/// Where the answer, an `inet_diag_msg`, has the number of the user, and that of the socket's inode.
const USER_AT: usize = HEADER + 64;
const INODE_AT: usize = HEADER + 68;
const NLMSG_ERROR: u16 = 2;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const ANY: [u8; 4] = [0xff; 4];
/// Sockets that are bound to no interface, and those bound to that of loopback, which has the same number everywhere.
const INTERFACES: [u32; 2] = [0, 1];

/// Who has a socket of this host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    User(u32),
    /// It is closed, and the kernel alone deals with what is left of it. Its user is known to some kernels: Linux 6.1
    /// says that it is root.
    Closed(Option<u32>),
}

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

    /// Where it asks.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }

    /// Whose a client is that has come from `peer` to `here`, an address of this host.
    pub fn source(&self, protocol: libc::c_int, peer: SocketAddr, here: SocketAddr) -> Source {
        let owner = is_local(peer, here).then(|| self.owner(protocol, peer, here));
        match owner.flatten() {
            Some(Owner::User(user) | Owner::Closed(Some(user))) => Source::User(user),
            Some(Owner::Closed(None)) => Source::Gone,
            None => Source::of_address(peer.ip()),
        }
    }

    /// Has a client of this host closed its socket? It reads no answer then.
    pub fn has_closed(&self, protocol: libc::c_int, peer: SocketAddr, here: SocketAddr) -> bool {
        let owner = is_local(peer, here).then(|| self.owner(protocol, peer, here));
        matches!(owner.flatten(), Some(Owner::Closed(_)))
    }

    /// Who has the socket at `peer`; none where the kernel does not tell.
    fn owner(&self, protocol: libc::c_int, peer: SocketAddr, here: SocketAddr) -> Option<Owner> {
        let mut owner = None;
        for interface in INTERFACES {
            owner = self.ask(&request(protocol, peer, here, interface));
            if !matches!(owner, Some(Owner::Closed(None))) {
                break;
            }
        }
        owner
    }

    fn ask(&self, request: &[u8]) -> Option<Owner> {
        let socket = self.0.as_ref()?;
        send(socket, request, SendFlags::empty()).ok()?;
        let mut answer = [0; 1024];
        let (bytes, _) = recv(socket, &mut answer[..], RecvFlags::empty()).ok()?;
        let answer = &answer[..bytes];
        let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
        match u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?) {
            SOCK_DIAG_BY_FAMILY => Some(match (word(USER_AT)?, word(INODE_AT)?) {
                (0, 0) => Owner::Closed(None),
                (user, 0) => Owner::Closed(Some(user)),
                (user, _) => Owner::User(user),
            }),
            // There is no such socket any more.
            NLMSG_ERROR if word(HEADER)? as i32 == -libc::ENOENT => Some(Owner::Closed(None)),
            _ => None,
        }
    }
}

/// Clients of this host have the address that they have come to, unless they insist on another.
fn is_local(peer: SocketAddr, here: SocketAddr) -> bool {
    peer.ip().is_loopback() || peer.ip() == here.ip()
}

fn request(
    protocol: libc::c_int,
    peer: SocketAddr,
    here: SocketAddr,
    interface: u32,
) -> [u8; REQUEST] {
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
    put(HEADER + 44, &interface.to_ne_bytes());
    // Without a cookie to compare.
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
        // The kernel knows of no such socket; and here it is not asked.
        let nobody: SocketAddr = "127.0.0.9:1".parse().unwrap();
        let here: SocketAddr = "127.0.0.1:2".parse().unwrap();
        let source = |users: &Users| users.source(libc::IPPROTO_TCP, nobody, here);
        assert_eq!(source(&users), Source::Gone);
        assert_eq!(source(&Users(None)), Source::Loopback);
    }

    /// A client of another user's.
    fn client_of(user: u32, address: SocketAddr) -> TcpStream {
        let connect = || {
            // SAFETY: it concerns this thread only, which ends soon.
            unsafe { libc::setfsuid(user) };
            TcpStream::connect(address).unwrap()
        };
        std::thread::scope(|scope| scope.spawn(connect).join().unwrap())
    }

    #[test]
    fn who_has_closed_already_is_not_root() {
        let users = Users::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let source = |abrupt: bool| {
            let client = client_of(1234, address);
            let peer = client.local_addr().unwrap();
            if abrupt {
                rustix::net::sockopt::set_socket_linger(&client, Some(Default::default())).unwrap();
            }
            assert!(!users.has_closed(libc::IPPROTO_TCP, peer, address));
            drop(client);
            let (_accepted, _) = listener.accept().unwrap();
            assert!(users.has_closed(libc::IPPROTO_TCP, peer, address));
            users.source(libc::IPPROTO_TCP, peer, address)
        };
        let left = source(false);
        // Linux 6.18 still knows whose it was, for a while.
        assert!(
            [Source::Gone, Source::User(1234)].contains(&left),
            "{left:?}"
        );
        assert_eq!(source(true), Source::Gone);
    }

    #[test]
    fn a_client_that_is_bound_to_an_interface_is_its_users() {
        let users = Users::new();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&client);
        let (level, option, name) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE, c"lo");
        // SAFETY: the name lives until the call returns.
        let bound = unsafe { libc::setsockopt(fd, level, option, name.as_ptr().cast(), 3) };
        assert_eq!(bound, 0);
        let here = "127.0.0.1:2".parse().unwrap();
        let me = Source::User(rustix::process::geteuid().as_raw());
        let peer = client.local_addr().unwrap();
        assert_eq!(users.source(libc::IPPROTO_UDP, peer, here), me);
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
