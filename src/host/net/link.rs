//! Interfaces of the host: their addresses, flags and routes (netdevice(7)).

use crate::config::{MacAddress, Subnet};
use kvmlet_sys::tap::{check, request};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Is there an interface of this name, in the network namespace of this thread?
pub(super) fn exists(name: &str) -> bool {
    Socket::open().is_ok_and(|socket| socket.flags(name).is_ok())
}

/// Sets an interface up, in the network namespace of this thread.
///
/// # Errors
/// When there is none of that name, or without CAP_NET_ADMIN.
pub fn set_up(name: &str) -> io::Result<()> {
    Socket::open()?.set_up(name, true)
}

/// What interfaces are asked through.
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        Ok(Self(socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            flags,
            None,
        )?))
    }

    fn ioctl(&self, number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: the numbers used here read and write one ifreq.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), number as _, request) })
    }

    pub fn flags(&self, name: &str) -> io::Result<libc::c_int> {
        let mut request = request(name, 0);
        self.ioctl(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: SIOCGIFFLAGS has written the flags.
        Ok(unsafe { request.ifr_ifru.ifru_flags }.into())
    }

    /// The interface's number, which no other gets as long as the network namespace is there.
    pub fn index(&self, name: &str) -> io::Result<u32> {
        let mut request = request(name, 0);
        self.ioctl(libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: SIOCGIFINDEX has written the number, which is positive.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex }.unsigned_abs())
    }

    pub fn is_up(&self, name: &str) -> bool {
        self.flags(name)
            .is_ok_and(|flags| flags & libc::IFF_UP != 0)
    }

    pub fn set_up(&self, name: &str, up: bool) -> io::Result<()> {
        let flags = self.flags(name)? & !libc::IFF_UP;
        let flags = flags | if up { libc::IFF_UP } else { 0 };
        self.ioctl(libc::SIOCSIFFLAGS, &mut request(name, flags))
    }

    pub fn mtu(&self, name: &str) -> io::Result<i32> {
        let mut request = request(name, 0);
        self.ioctl(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: SIOCGIFMTU has written the MTU.
        Ok(unsafe { request.ifr_ifru.ifru_mtu })
    }

    pub fn set_mtu(&self, name: &str, mtu: u16) -> io::Result<()> {
        let mut request = request(name, 0);
        request.ifr_ifru.ifru_mtu = mtu.into();
        self.ioctl(libc::SIOCSIFMTU, &mut request)
    }

    /// The interface's own hardware address.
    pub fn hardware_address(&self, name: &str) -> io::Result<MacAddress> {
        let mut request = request(name, 0);
        self.ioctl(libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: SIOCGIFHWADDR has written an address, whose first bytes these are.
        let bytes = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
        Ok(MacAddress::from(std::array::from_fn(|n| bytes[n] as u8)))
    }

    /// Gives an interface that is down the host's address of the network. (Were it up, the kernel would first
    /// make a route to all of the address's class.)
    pub fn set_address(&self, name: &str, subnet: Subnet) -> io::Result<()> {
        self.set(libc::SIOCSIFADDR, name, subnet.host())?;
        self.set(
            libc::SIOCSIFNETMASK,
            name,
            Ipv4Addr::from_bits(subnet.mask()),
        )
    }

    /// Takes its address from an interface.
    pub fn clear_address(&self, name: &str) -> io::Result<()> {
        self.set(libc::SIOCSIFADDR, name, Ipv4Addr::UNSPECIFIED)
    }

    fn set(&self, number: libc::c_ulong, name: &str, address: Ipv4Addr) -> io::Result<()> {
        let mut request = request(name, 0);
        let value = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr {
                s_addr: address.to_bits().to_be(),
            },
            sin_zero: [0; 8],
        };
        // SAFETY: both are addresses of 16 bytes, plain data.
        request.ifr_ifru.ifru_addr =
            unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(value) };
        self.ioctl(number, &mut request)
    }
}

/// An IPv4 route of the host's main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub interface: String,
    pub destination: u32,
    pub mask: u32,
}

impl Route {
    /// Is it the default route, which overlaps with everything by its nature?
    pub fn is_default(&self) -> bool {
        self.mask == 0
    }

    pub fn overlaps(&self, subnet: Subnet) -> bool {
        let mask = self.mask & subnet.mask();
        (self.destination ^ subnet.address().to_bits()) & mask == 0
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let destination = Ipv4Addr::from_bits(self.destination);
        write!(
            f,
            "{destination}/{} on {}",
            self.mask.count_ones(),
            self.interface
        )
    }
}

/// The routes in the network namespace of this thread.
pub(super) fn routes() -> io::Result<Vec<Route>> {
    Ok(parse_routes(&fs::read_to_string(
        "/proc/thread-self/net/route",
    )?))
}

/// The kernel prints addresses as numbers of the machine's byte order, in hexadecimal.
fn parse_routes(text: &str) -> Vec<Route> {
    let hex = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::from_be);
    let route = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        Some(Route {
            interface: (*fields.first()?).into(),
            destination: hex(fields.get(1)?)?,
            mask: hex(fields.get(7)?)?,
        })
    };
    text.lines().skip(1).filter_map(route).collect()
}

/// A setting of one interface, in the network namespace of this thread.
fn setting(family: &str, interface: &str, name: &str) -> std::path::PathBuf {
    Path::new("/proc/sys/net")
        .join(family)
        .join("conf")
        .join(interface)
        .join(name)
}

/// Are packets that come in on this interface forwarded?
pub(super) fn forwards(interface: &str) -> bool {
    fs::read_to_string(setting("ipv4", interface, "forwarding"))
        .is_ok_and(|text| text.trim() == "1")
}

pub(super) fn set_forwarding(interface: &str, on: bool) -> io::Result<()> {
    fs::write(
        setting("ipv4", interface, "forwarding"),
        if on { "1" } else { "0" },
    )
}

/// Can it be set? The settings are read-only in most containers.
///
/// # Errors
/// What the kernel says if not.
pub(super) fn may_set_forwarding() -> io::Result<()> {
    let all = setting("ipv4", "all", "forwarding");
    fs::File::options().write(true).open(all).map(drop)
}

/// All interfaces that forward, but loopback.
pub(super) fn forwarding_interfaces() -> Vec<String> {
    let entries = fs::read_dir("/proc/sys/net/ipv4/conf");
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !["all", "default", "lo"].contains(&name.as_str()) && forwards(name))
        .collect()
}

/// Keeps the host from speaking IPv6 with the guest, whose addresses would be nobody's to check.
pub(super) fn disable_ipv6(interface: &str) {
    // A kernel without IPv6 has no such file, and nothing to disable.
    let _ = fs::write(setting("ipv6", interface, "disable_ipv6"), "1");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_prints_them() {
        let routes = parse_routes(
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
             broken\n",
        );
        assert_eq!(routes.len(), 2);
        assert!(routes[0].is_default());
        assert_eq!(routes[1].to_string(), "192.0.2.0/24 on eth0");
        for (subnet, overlaps) in [
            ("192.0.2.4/30", true),
            ("192.0.0.0/16", true),
            ("192.0.3.0/30", false),
        ] {
            assert_eq!(
                routes[1].overlaps(subnet.parse().unwrap()),
                overlaps,
                "{subnet}"
            );
        }
    }
}
