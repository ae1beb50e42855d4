//! What a guest asks for names: the host, at its address in the guest's network, whoever the host asks itself.
//!
//! A guest could not ask the host's own servers by itself, mostly: they are on loopback, of IPv6, or at private
//! addresses, and they change.

use super::proxy::{DnsOffer, NameServers};
use super::record::DnsPorts;
use super::tap::Tap;
use super::{Error, probe};
use crate::config::{MacAddress, Subnet};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

/// Stands for port 53 unless it is taken. It is the same for each VM, as the kernel goes on to send what comes from a
/// port of a guest where it went before: to a VM that is gone, if the next has its address.
const PORT: u16 = 15353;
/// Connections of the guest that may wait.
const BACKLOG: i32 = 16;

/// The host's name servers: what they are now, in the order in which they are asked.
pub fn name_servers() -> Vec<SocketAddr> {
    NameServers::new(&[]).known().to_vec()
}

/// Sockets that a guest's questions arrive at.
pub(super) struct NameService {
    udp: UdpSocket,
    tcp: TcpListener,
    ports: DnsPorts,
    servers: NameServers,
}

impl NameService {
    /// Takes ports at the host's address in a network, which does not have to be there yet. Port 53 is taken where the
    /// host serves names at all its addresses, and not every user may have it.
    ///
    /// `servers` are whom to ask; the host's own if there are none.
    pub fn bind(subnet: Subnet, servers: &[IpAddr]) -> Result<Self, Error> {
        let bind = || {
            let (udp, udp_port) = socket_at(subnet.host(), SocketType::DGRAM)?;
            let (tcp, tcp_port) = socket_at(subnet.host(), SocketType::STREAM)?;
            listen(&tcp, BACKLOG)?;
            let ports = DnsPorts {
                udp: udp_port,
                tcp: tcp_port,
            };
            Ok((udp, tcp, ports))
        };
        let (udp, tcp, ports) = bind().map_err(|source| Error::NameService { source })?;
        Ok(Self {
            udp: udp.into(),
            tcp: tcp.into(),
            ports,
            servers: NameServers::new(servers),
        })
    }

    pub fn ports(&self) -> DnsPorts {
        self.ports
    }

    /// What the user should know: that there is nobody to ask.
    pub fn warning(&self) -> Option<String> {
        self.servers.known().is_empty().then(|| {
            "the guest can look up no names until /etc/resolv.conf of this host has a name server; or name one \
             with `dns`"
                .into()
        })
    }

    /// Can the guest ask? Firewalls of this host may keep it from that.
    pub fn is_reached(&self, tap: &Tap, guest: MacAddress, subnet: Subnet) -> bool {
        probe::arrives(tap, guest, subnet, &self.udp).unwrap_or_else(|error| {
            log::debug!("whether the guest can ask for names is not known: {error}");
            true
        })
    }

    /// The servers that a guest could ask by itself.
    pub fn direct(&self) -> Vec<Ipv4Addr> {
        let servers = self.servers.known().iter().map(SocketAddr::ip);
        let direct = servers.filter_map(|server| match server {
            IpAddr::V4(server) if !server.is_loopback() && !server.is_unspecified() => Some(server),
            _ => None,
        });
        direct.collect()
    }

    /// What is to be served to a guest.
    pub fn offer(self, guest: Ipv4Addr) -> DnsOffer {
        let Self {
            udp, tcp, servers, ..
        } = self;
        DnsOffer {
            udp,
            tcp,
            guest,
            servers,
        }
    }
}

/// What the user should know of a guest that cannot ask this host. `direct` are whom it is left to ask.
pub(super) fn unreached(tap: &str, direct: &[Ipv4Addr]) -> String {
    let left = match direct {
        [] => "and it can look up none".into(),
        _ => {
            let list: Vec<String> = direct.iter().map(Ipv4Addr::to_string).collect();
            format!(
                "so it is told to ask {}, which it may not reach",
                list.join(", ")
            )
        }
    };
    format!(
        "a firewall of this host keeps the guest from asking it for names, {left}; let the guest in: `sudo iptables \
         -I INPUT -i {tap} -j ACCEPT`, `sudo ufw allow in on {tap}`, or with nftables `iifname {tap} accept` first in \
         the firewall's input chain (kvmlet's own rules let in nothing but questions and pings)"
    )
}

/// A socket that does not block, with its port.
fn socket_at(address: Ipv4Addr, kind: SocketType) -> io::Result<(OwnedFd, u16)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
    sockopt::set_ip_freebind(&socket, true)?;
    if kind == SocketType::STREAM {
        // Connections of a VM that has ended are not in the way of the next.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    match bind(&socket, &SocketAddrV4::new(address, PORT)) {
        Err(Errno::ADDRINUSE) => bind(&socket, &SocketAddrV4::new(address, 0))?,
        other => other?,
    }
    let name = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, name.port()))
}
