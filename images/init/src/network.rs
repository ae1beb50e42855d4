//! Network configuration over rtnetlink(7): one datagram with all requests, one answer.
//!
//! The kernel's own `ip=` is not used: it waits for links and sleeps while it does.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::net::IpAddr;

use kvmlet_contract::NetworkSpec;
use linux_raw_sys::net::{AF_INET, AF_INET6};
use linux_raw_sys::netlink::{
    IFA_ADDRESS, IFA_F_NODAD, IFA_LOCAL, IFLA_MTU, NETLINK_ROUTE, NLM_F_ACK, NLM_F_CREATE,
    NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, RTM_DELADDR, RTM_GETADDR,
    RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTN_UNICAST, RTNH_F_ONLINK, RTPROT_BOOT, rtattr_type_t,
};

use crate::sys::{Errno, File, O_WRONLY};
use crate::{appear, etc};

/// The loopback interface's number in every network namespace (LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;
const IFF_UP: u32 = 1;
/// From linux/rtnetlink.h.
const RT_TABLE_MAIN: u8 = 254;
const RT_SCOPE_UNIVERSE: u8 = 0;
/// struct nlmsghdr: u32 length, u16 type, u16 flags, u32 sequence number, u32 port.
const HEADER_SIZE: usize = 16;
/// Flags of a request for something that may be there already.
const SET: u32 = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE;

/// Brings up loopback and the interfaces in `networks`, and writes down their name servers.
pub fn configure(networks: &[NetworkSpec]) -> Result<(), String> {
    let socket = match File::netlink(NETLINK_ROUTE) {
        Ok(socket) => socket,
        // A kernel without a network is fine if none is asked for.
        Err(_) if networks.is_empty() => return Ok(()),
        Err(error) => return Err(format!("configure the network: {error}")),
    };
    let mut requests = Requests::default();
    requests.link_up(LOOPBACK, None, "bring up loopback".into());
    for network in networks {
        let index = interface_index(&socket, &network.interface)?;
        requests.interface(index, network);
    }
    requests.send(&socket)?;
    if !networks.is_empty() {
        fill_frames();
    }
    write_name_servers(networks)
}

/// Has TCP hand the interface larger frames, which the host cuts where it must. The kernel makes them as long as it takes a
/// millisecond to send at the rate that it has seen, of two packets at least; where a guest's kernel is slow that is all, and
/// each frame costs it a frame's time and an acknowledgement's. A kernel that knows no such bound goes on without.
fn fill_frames() {
    const BOUND: &CStr = c"/proc/sys/net/ipv4/tcp_min_tso_segs";
    /// As many packets, 23 KiB, where the window has room for twice that.
    const PACKETS: &[u8] = b"16";
    let _ = File::open(BOUND, O_WRONLY).and_then(|file| file.write(PACKETS));
}

/// Gives an interface this configuration instead of the one that it has.
pub fn replace(network: &NetworkSpec) -> Result<(), String> {
    let failed = |error: Errno| format!("configure the network: {error}");
    let socket = File::netlink(NETLINK_ROUTE).map_err(failed)?;
    let index = interface_index(&socket, &network.interface)?;
    // An interface that goes down loses its routes; IPv4 addresses go with the last one of their network.
    let mut requests = Requests::default();
    requests.remove_addresses(&socket, index).map_err(failed)?;
    requests.interface(index, network);
    requests.send(&socket)?;
    write_name_servers(core::slice::from_ref(network))
}

/// The number of the interface, which may have to appear first.
fn interface_index(socket: &File, name: &str) -> Result<u32, String> {
    appear::wait_for(name, || socket.interface_index(name)).map_err(|error| match error {
        Errno::ENODEV => format!("configure {name}: no such interface after 5 s"),
        error => format!("configure {name}: {error}"),
    })
}

/// Netlink messages in the making, each with what it is to achieve.
#[derive(Default)]
struct Requests {
    bytes: Vec<u8>,
    /// Where the last message starts.
    last: usize,
    /// By sequence number.
    purposes: Vec<String>,
}

impl Requests {
    fn interface(&mut self, index: u32, network: &NetworkSpec) {
        let NetworkSpec {
            interface,
            address,
            prefix,
            ..
        } = network;
        let (family, address_bytes) = octets(address);
        self.link_up(
            index,
            network.mtu,
            match network.mtu {
                Some(mtu) => format!("bring up {interface} with an MTU of {mtu}"),
                None => format!("bring up {interface}"),
            },
        );

        self.begin(
            RTM_NEWADDR as u16,
            SET,
            format!("give {interface} the address {address}/{prefix}"),
        );
        // struct ifaddrmsg; duplicates cannot be on a link that the host has made.
        self.bytes.extend([family, *prefix, IFA_F_NODAD as u8, 0]);
        self.bytes.extend(index.to_ne_bytes());
        self.attribute(IFA_LOCAL as u16, &address_bytes);
        self.attribute(IFA_ADDRESS as u16, &address_bytes);
        self.end();

        if let Some(gateway) = &network.gateway {
            self.begin(
                RTM_NEWROUTE as u16,
                SET,
                format!("route through {gateway} on {interface}"),
            );
            // struct rtmsg with prefixes of 0 bits: the default route. The gateway need not be
            // in the address's network.
            self.bytes.extend([
                family,
                0,
                0,
                0,
                RT_TABLE_MAIN,
                RTPROT_BOOT as u8,
                0,
                RTN_UNICAST as u8,
            ]);
            self.bytes.extend(RTNH_F_ONLINK.to_ne_bytes());
            self.attribute(rtattr_type_t::RTA_GATEWAY as u16, &octets(gateway).1);
            self.attribute(rtattr_type_t::RTA_OIF as u16, &index.to_ne_bytes());
            self.end();
        }
    }

    /// Takes the interface's addresses away, but for those that the kernel has made of the link's own.
    fn remove_addresses(&mut self, socket: &File, index: u32) -> Result<(), Errno> {
        let mut ask = Self::default();
        ask.begin(
            RTM_GETADDR as u16,
            NLM_F_REQUEST | NLM_F_DUMP,
            String::new(),
        );
        // struct ifaddrmsg: of all families and interfaces.
        ask.bytes.extend([0; 8]);
        ask.end();
        socket.write(&ask.bytes)?;
        let mut answer = [0; 8192];
        loop {
            let length = socket.read(&mut answer)?;
            let mut rest = &answer[..length];
            while let Some((kind, message, others)) = message(rest) {
                rest = others;
                match u32::from(kind) {
                    NLMSG_DONE | NLMSG_ERROR => return Ok(()),
                    kind if kind == RTM_NEWADDR as u32 && is_own_address(message, index) => {
                        self.begin(
                            RTM_DELADDR as u16,
                            NLM_F_REQUEST,
                            "remove an address".into(),
                        );
                        self.bytes.extend(message);
                        self.end();
                    }
                    _ => {}
                }
            }
        }
    }

    fn link_up(&mut self, index: u32, mtu: Option<u32>, purpose: String) {
        self.begin(RTM_NEWLINK as u16, NLM_F_REQUEST, purpose);
        // struct ifinfomsg: family, padding, type, index, flags, which flags to change.
        self.bytes.extend([0; 4]);
        for field in [index, IFF_UP, IFF_UP] {
            self.bytes.extend(field.to_ne_bytes());
        }
        if let Some(mtu) = mtu {
            self.attribute(IFLA_MTU as u16, &mtu.to_ne_bytes());
        }
        self.end();
    }

    fn begin(&mut self, kind: u16, flags: u32, purpose: String) {
        self.last = self.bytes.len();
        let sequence = self.purposes.len() as u32;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags as u16).to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.purposes.push(purpose);
    }

    /// Appends a struct rtattr; values here are multiples of 4 bytes long and need no padding.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
    }

    fn end(&mut self) {
        let length = (self.bytes.len() - self.last) as u32;
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Has the kernel do it all, and returns the first complaint. The kernel answers a request
    /// that fails, and the last one in any case because that asks for it.
    fn send(mut self, socket: &File) -> Result<(), String> {
        let flags = self.last + 6;
        self.bytes[flags] |= NLM_F_ACK as u8;
        let failed = |error: Errno| format!("configure the network: {error}");
        socket.write(&self.bytes).map_err(failed)?;
        let last_sequence = self.purposes.len() - 1;
        let mut answer = [0; 4096];
        loop {
            let length = socket.read(&mut answer).map_err(failed)?;
            // An answer is a header and struct nlmsgerr: a negated error number and the header
            // of the request.
            let field = |at: usize| match answer.get(at..at + 4) {
                Some(&[a, b, c, d]) => i32::from_ne_bytes([a, b, c, d]),
                _ => 0,
            };
            let kind = field(4) as u16;
            if length < HEADER_SIZE + 4 || u32::from(kind) != NLMSG_ERROR {
                continue;
            }
            let (sequence, error) = (field(8) as usize, -field(HEADER_SIZE));
            if error != 0 {
                let purpose = self
                    .purposes
                    .get(sequence)
                    .map_or("configure the network", |p| p);
                return Err(format!("{purpose}: {}", Errno::from_number(error)));
            }
            if sequence == last_sequence {
                return Ok(());
            }
        }
    }
}

/// The first netlink message in `bytes`: its type, its payload, and what follows.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (&[a, b, c, d, kind_low, kind_high], _) = bytes.split_first_chunk()?;
    let length = u32::from_ne_bytes([a, b, c, d]) as usize;
    let payload = bytes.get(HEADER_SIZE..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16::from_ne_bytes([kind_low, kind_high]), payload, rest))
}

/// Whether struct ifaddrmsg is about an address of that interface with a scope beyond the link.
fn is_own_address(message: &[u8], index: u32) -> bool {
    let Some((&[_, _, _, scope, a, b, c, d], _)) = message.split_first_chunk() else {
        return false;
    };
    scope == RT_SCOPE_UNIVERSE && u32::from_ne_bytes([a, b, c, d]) == index
}

/// Address family and bytes of an address.
fn octets(address: &IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (AF_INET as u8, address.octets().into()),
        IpAddr::V6(address) => (AF_INET6 as u8, address.octets().into()),
    }
}

/// Writes `/etc/resolv.conf` if there is a name server to write.
fn write_name_servers(networks: &[NetworkSpec]) -> Result<(), String> {
    let mut text = String::new();
    for server in networks.iter().flat_map(|network| &network.dns) {
        text += &format!("nameserver {server}\n");
    }
    if text.is_empty() {
        return Ok(());
    }
    etc::put(c"resolv.conf", &text)
}
