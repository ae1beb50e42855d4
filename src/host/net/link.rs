//! Interfaces of the host: their addresses, flags and routes (netdevice(7)).

use crate::config::{MacAddress, Subnet};
use kvmlet_sys::tap::{check, request};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::fs;
use std::io::{self, BufRead, BufReader};
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

    /// The name of the interface of this number.
    pub fn name(&self, index: u32) -> io::Result<String> {
        let mut request = request("", 0);
        request.ifr_ifru.ifru_ifindex = index.cast_signed();
        self.ioctl(libc::SIOCGIFNAME, &mut request)?;
        let name = request.ifr_name.map(|byte| byte as u8);
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(name).into_owned())
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
        request.ifr_ifru.ifru_addr = sockaddr(address);
        self.ioctl(number, &mut request)
    }

    /// Has the kernel know a neighbour's hardware address (arp(7)): without asking, for good, or as if it had been told.
    pub fn set_neighbour(
        &self,
        name: &str,
        (address, mac): (Ipv4Addr, MacAddress),
        for_good: bool,
    ) -> io::Result<()> {
        /// The number of Linux, which is missing for some C libraries.
        const SIOCSARP: libc::c_ulong = 0x8955;
        // SAFETY: it is plain data, for which zeros are valid.
        let mut entry: libc::arpreq = unsafe { std::mem::zeroed() };
        entry.arp_pa = sockaddr(address);
        entry.arp_ha.sa_family = libc::ARPHRD_ETHER;
        for (to, from) in entry.arp_ha.sa_data.iter_mut().zip(mac.octets()) {
            *to = from as libc::c_char;
        }
        let permanent = if for_good { libc::ATF_PERM } else { 0 };
        entry.arp_flags = libc::ATF_COM | permanent;
        let most = entry.arp_dev.len() - 1;
        for (to, from) in entry.arp_dev[..most].iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: SIOCSARP reads an arpreq.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCSARP as _, &raw const entry) })
    }
}

fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let value = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: address.to_bits().to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: both are addresses of 16 bytes, plain data.
    unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(value) }
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

/// Those that lead to whatever no other route leads to. They are the first that the kernel tells, since it has all in the
/// order of their destinations, and no more are read.
pub(super) fn default_routes() -> io::Result<Vec<Route>> {
    let file = fs::File::open("/proc/thread-self/net/route")?;
    default_among(BufReader::with_capacity(1024, file))
}

fn default_among(table: impl BufRead) -> io::Result<Vec<Route>> {
    let mut found = Vec::new();
    for line in table.lines().skip(1) {
        match parse_route(&line?) {
            Some(route) if route.destination != 0 => break,
            route => found.extend(route.filter(Route::is_default)),
        }
    }
    Ok(found)
}

/// The kernel prints addresses as numbers of the machine's byte order, in hexadecimal.
fn parse_route(line: &str) -> Option<Route> {
    let hex = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::from_be);
    let mut fields = line.split_ascii_whitespace();
    Some(Route {
        interface: fields.next()?.into(),
        destination: hex(fields.next()?)?,
        mask: hex(fields.nth(5)?)?,
    })
}

fn parse_routes(text: &str) -> Vec<Route> {
    text.lines().skip(1).filter_map(parse_route).collect()
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

/// All interfaces but loopback.
pub(super) fn interfaces() -> Vec<String> {
    let entries = fs::read_dir("/proc/sys/net/ipv4/conf");
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !["all", "default", "lo"].contains(&name.as_str()))
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
    fn default_routes_are_found_without_a_look_at_the_others() {
        let line = |interface: &str, destination: &str, mask: &str| {
            let all = [
                interface,
                destination,
                "0",
                "0003",
                "0",
                "0",
                "0",
                mask,
                "0",
                "0",
                "0",
            ];
            format!("{:<127}\n", all.join("\t"))
        };
        let many = |count: usize| {
            let defaults = ["eth0", "eth1"].map(|name| line(name, "00000000", "00000000"));
            let half = line("tun0", "00000000", "00000080");
            let others = line("kvmlet0", "00006B0A", "FCFFFFFF").repeat(count);
            [
                &line("Iface", "Destination", "Mask"),
                &half,
                &defaults.concat(),
                &others,
            ]
            .map(String::as_str)
            .concat()
        };
        let read = |count| {
            let text = many(count);
            let mut rest = text.as_bytes();
            let found = default_among(BufReader::with_capacity(1024, &mut rest)).unwrap();
            let names: Vec<_> = found.into_iter().map(|route| route.interface).collect();
            assert_eq!(names, ["eth0", "eth1"]);
            text.len() - rest.len()
        };
        assert_eq!(read(20), read(2000));
    }

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
