//! Taking the host's ports for a guest: a socket for each address that one is published at.

use super::error::Holder;
use super::lease::Leases;
use super::namespace::Namespace;
use super::{Error, addresses};
use crate::config::{HostAddress, HostPort, PortMapping, Protocol};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;

/// How many clients may wait at each TCP port; the host's own bound (`net.core.somaxconn`) may be lower.
const BACKLOG: i32 = 1024;
/// How often the host is asked for a port that is free at both of its families.
const TRIES: usize = 32;

/// Sockets of published ports, each with the guest's port.
#[derive(Default)]
pub(super) struct Published {
    pub tcp: Vec<(TcpListener, NonZeroU16)>,
    pub udp: Vec<(UdpSocket, NonZeroU16)>,
    /// What was asked for, with the host's ports that it has come to.
    pub mappings: Vec<PortMapping>,
}

/// Takes all ports, or none. Who has one already may be found among the leases.
pub(super) fn take(
    ports: &[PortMapping],
    mut leases: Option<&mut Leases>,
) -> Result<Published, Error> {
    let mut published = Published::default();
    for mapping in ports {
        let (sockets, host) =
            bind_one(mapping).map_err(|refusal| refusal.explain(leases.as_deref_mut()))?;
        for socket in sockets {
            match mapping.protocol {
                Protocol::Tcp => published.tcp.push((socket.into(), mapping.guest)),
                Protocol::Udp => published.udp.push((socket.into(), mapping.guest)),
            }
        }
        published.mappings.push(PortMapping {
            host: HostPort::Fixed(host),
            ..*mapping
        });
    }
    Ok(published)
}

/// A port that the host does not give.
struct Refusal {
    mapping: PortMapping,
    at: IpAddr,
    source: io::Error,
}

impl Refusal {
    fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    fn explain(self, leases: Option<&mut Leases>) -> Error {
        let Self {
            mapping,
            at,
            source,
        } = self;
        match source.kind() {
            io::ErrorKind::AddrNotAvailable => Error::NoSuchAddress {
                mapping,
                address: at,
                there: addresses::all(),
            },
            io::ErrorKind::AddrInUse => {
                let here = Namespace::here();
                let neighbours = leases.and_then(|leases| leases.live().ok());
                let neighbours = neighbours.unwrap_or_default().iter();
                let neighbours = neighbours.filter(|record| record.is_of(here));
                Error::PortTaken {
                    mapping,
                    holder: Holder::of(&mapping, neighbours),
                    source,
                }
            }
            _ => Error::Publish { mapping, source },
        }
    }
}

fn bind_one(mapping: &PortMapping) -> Result<(Vec<OwnedFd>, NonZeroU16), Refusal> {
    let (first, last) = match mapping.host {
        HostPort::Fixed(port) => return bind_port(mapping, port.get()),
        HostPort::FirstFree(first, last) => (first.get(), last.get()),
        HostPort::Any => {
            let mut result = bind_port(mapping, 0);
            for _ in 0..TRIES {
                match &result {
                    Err(refusal) if refusal.is_taken() => result = bind_port(mapping, 0),
                    _ => break,
                }
            }
            return result;
        }
    };
    let mut result = bind_port(mapping, first);
    for port in first + 1..=last {
        match &result {
            Err(refusal) if refusal.is_taken() => result = bind_port(mapping, port),
            _ => break,
        }
    }
    result
}

/// Takes one port at all addresses of a mapping; 0 is one that the host chooses.
fn bind_port(mapping: &PortMapping, mut port: u16) -> Result<(Vec<OwnedFd>, NonZeroU16), Refusal> {
    let mut sockets = Vec::new();
    for at in mapping.address.addresses() {
        let address = SocketAddr::new(at, port);
        let bound = socket_at(address, mapping.protocol).and_then(|socket| {
            let name = rustix::net::getsockname(&socket)?;
            Ok((socket, SocketAddr::try_from(name)?.port()))
        });
        match bound {
            Ok((socket, chosen)) => {
                port = chosen;
                sockets.push(socket);
            }
            Err(source) if without_ipv6(mapping.address, at, &source) => {}
            Err(source) => {
                // Of a range the first stands for all.
                let mapping = *mapping;
                return Err(Refusal {
                    mapping,
                    at,
                    source,
                });
            }
        }
    }
    match NonZeroU16::new(port) {
        Some(port) => Ok((sockets, port)),
        None => Err(Refusal {
            mapping: *mapping,
            at: IpAddr::from([0; 4]),
            source: io::ErrorKind::AddrNotAvailable.into(),
        }),
    }
}

/// Whether an address is to be left out because the host has no IPv6, which nobody insisted on.
fn without_ipv6(wanted: HostAddress, at: IpAddr, error: &io::Error) -> bool {
    let absent = [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL];
    !matches!(wanted, HostAddress::Ip(_))
        && at.is_ipv6()
        && error
            .raw_os_error()
            .is_some_and(|number| absent.contains(&number))
}

/// A socket that does not block, and listens if that is its kind.
fn socket_at(address: SocketAddr, protocol: Protocol) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own, whatever the host's default is.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of a VM that has ended are not in the way of the next.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}
