//! What a guest asks for names: the host, at its address in the guest's network, whoever the host asks itself.
//!
//! A guest could not ask the host's own servers by itself, mostly: they are on loopback, of IPv6, or at private
//! addresses, and they change.

use super::Error;
use super::lease::DnsPorts;
use super::proxy::{DnsOffer, NameServers};
use crate::config::Subnet;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

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
    /// Takes ports at the host's address in a network, which does not have to be there yet. They are any: port 53 is
    /// taken where the host serves names at all its addresses, and not every user's.
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
             with --dns"
                .into()
        })
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

/// A socket that does not block, with its port.
fn socket_at(address: Ipv4Addr, kind: SocketType) -> io::Result<(OwnedFd, u16)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
    sockopt::set_ip_freebind(&socket, true)?;
    bind(&socket, &SocketAddrV4::new(address, 0))?;
    let name = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, name.port()))
}
