//! Where this host would send a packet, as its kernel says at that moment (rtnetlink(7)).

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// It is number 0 (linux/netlink.h).
const NETLINK_ROUTE: Option<rustix::net::Protocol> = None;
/// linux/netlink.h and linux/rtnetlink.h
const NLM_F_REQUEST: u16 = 1;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTN_UNICAST: u8 = 1;
/// Sizes of `nlmsghdr`, `rtmsg` and an attribute with an address, in bytes.
const HEADER: usize = 16;
const MESSAGE: usize = 12;
const ATTRIBUTE: usize = 8;
/// Where `rtm_type` stands in an answer.
const TYPE: usize = HEADER + 7;

/// Whether an address is that of another host, reached by its routes: neither one of this host nor of a group.
pub(super) trait Routes {
    fn lead_elsewhere(&mut self, address: Ipv4Addr) -> bool;
}

/// Those of the network namespace that it was opened in.
pub(super) struct HostRoutes {
    socket: OwnedFd,
    sequence: u32,
}

impl HostRoutes {
    pub fn open() -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = socket_with(family, kind, flags, NETLINK_ROUTE)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// The type of the route (RTN_*), if there is one.
    fn ask(&mut self, address: Ipv4Addr) -> Option<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut question = [0; HEADER + MESSAGE + ATTRIBUTE];
        let mut put =
            |at: usize, bytes: &[u8]| question[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &((HEADER + MESSAGE + ATTRIBUTE) as u32).to_ne_bytes());
        put(4, &RTM_GETROUTE.to_ne_bytes());
        put(6, &NLM_F_REQUEST.to_ne_bytes());
        put(8, &self.sequence.to_ne_bytes());
        put(HEADER, &[libc::AF_INET as u8, 32]);
        put(HEADER + MESSAGE, &(ATTRIBUTE as u16).to_ne_bytes());
        put(HEADER + MESSAGE + 2, &RTA_DST.to_ne_bytes());
        put(HEADER + MESSAGE + 4, &address.octets());
        send(&self.socket, &question, SendFlags::empty()).ok()?;
        // The kernel has answered before the call returns; answers to what was asked before are skipped.
        let mut answer = [0; 1024];
        loop {
            let (bytes, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty()).ok()?;
            let answer = answer.get(..bytes)?;
            if answer.get(8..12)? != self.sequence.to_ne_bytes() {
                continue;
            }
            let is_route = answer.get(4..6)? == RTM_NEWROUTE.to_ne_bytes();
            return answer.get(TYPE).copied().filter(|_| is_route);
        }
    }
}

impl Routes for HostRoutes {
    fn lead_elsewhere(&mut self, address: Ipv4Addr) -> bool {
        self.ask(address) == Some(RTN_UNICAST)
    }
}

impl AsFd for HostRoutes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::isolation::isolated;
    use super::super::super::tests::run;
    use super::*;

    #[test]
    fn addresses_of_this_host_are_told_from_others_as_they_come() {
        isolated(
            "net::passt::routes::tests::addresses_of_this_host_are_told_from_others_as_they_come",
            || {
                let mut routes = HostRoutes::open().unwrap();
                let mut elsewhere = |text: &str| routes.lead_elsewhere(text.parse().unwrap());
                assert!(!elsewhere("198.51.100.1"), "there is no route");
                run("ip", &["link", "set", "lo", "up"]);
                run("ip", &["tuntap", "add", "uplink", "mode", "tap"]);
                run("ip", &["addr", "add", "192.0.2.2/24", "dev", "uplink"]);
                run("ip", &["link", "set", "uplink", "up"]);
                run("ip", &["route", "add", "default", "via", "192.0.2.1"]);
                for (address, expected) in [
                    ("198.51.100.1", true),
                    ("192.0.2.3", true),
                    ("192.0.2.2", false),
                    ("192.0.2.255", false),
                    ("127.0.0.1", false),
                    ("127.9.9.9", false),
                    ("224.0.0.1", false),
                    ("255.255.255.255", false),
                ] {
                    assert_eq!(elsewhere(address), expected, "{address}");
                }
                // A second address of the same network.
                run("ip", &["addr", "add", "192.0.2.3/24", "dev", "uplink"]);
                assert!(!elsewhere("192.0.2.3"));
                run("ip", &["addr", "del", "192.0.2.3/24", "dev", "uplink"]);
                assert!(elsewhere("192.0.2.3"));
            },
        );
    }
}
