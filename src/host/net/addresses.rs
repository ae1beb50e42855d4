//! The host's own addresses (getifaddrs(3)), and who listens at them.

use crate::config::{PortMapping, Protocol};
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// All addresses in the network namespace of this thread that somebody can listen at.
pub(super) fn all() -> Vec<IpAddr> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: on success the list is the caller's, to be freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: entries and the addresses they point to are valid until the list is freed.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: as above; the pointer may be null.
        found.extend(unsafe { address(entry.ifa_addr) });
    }
    // SAFETY: it comes from getifaddrs and is not used any more.
    unsafe { libc::freeifaddrs(list) };
    found.dedup();
    found
}

/// # Safety
/// The pointer is null or leads to an address of the family that it names.
unsafe fn address(at: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller's promise.
    let family = unsafe { at.as_ref() }?.sa_family;
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: of this family it is a sockaddr_in.
            let address = unsafe { &*at.cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr));
            Some(address.into())
        }
        libc::AF_INET6 => {
            // SAFETY: of this family it is a sockaddr_in6.
            let address = unsafe { &*at.cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(address.sin6_addr.s6_addr);
            (!address.is_unicast_link_local()).then_some(address.into())
        }
        _ => None,
    }
}

/// The first port that everybody may have here (ip_unprivileged_port_start in ip(7)).
pub(super) fn first_for_all() -> u16 {
    /// Before Linux 4.11 it was not to be changed.
    const USUAL: u16 = 1024;
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(USUAL)
}

/// The process that has a port which is to be published, if this user may know: its number and name.
pub(super) fn listener(mapping: &PortMapping, port: u16) -> Option<(u32, String)> {
    let protocol = mapping.protocol;
    let inode = [protocol.name().to_string(), format!("{}6", protocol.name())]
        .iter()
        .filter_map(|file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).ok())
        .find_map(|table| holder_of(&table, mapping, port))?;
    owner(inode)
}

/// The process that has a socket in the abstract name space, if this user may know: its number and name.
pub(super) fn owner_of_name(name: &str) -> Option<(u32, String)> {
    let table = fs::read_to_string("/proc/thread-self/net/unix").ok()?;
    let name = format!("@{name}");
    let inode = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = fields.get(7).is_some_and(|path| **path == name);
        is_it.then(|| fields.get(6)?.parse().ok()).flatten()
    });
    owner(inode?)
}

/// The process that has the socket of that inode.
fn owner(inode: u64) -> Option<(u32, String)> {
    let link = OsString::from(format!("socket:[{inode}]"));
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.find_map(|pid: u32| {
        let process = Path::new("/proc").join(pid.to_string());
        let mut descriptors = fs::read_dir(process.join("fd")).ok()?.flatten();
        let has = |entry: fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|to| to == link);
        descriptors.any(has).then(|| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            (pid, name.trim().to_string())
        })
    })
}

/// The inode of a socket in one of the kernel's tables that is in a mapping's way (proc_pid_net(5)).
fn holder_of(table: &str, mapping: &PortMapping, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let at = parse_address(fields.get(1)?)?;
        // TCP_LISTEN; UDP has no such state.
        let serves = mapping.protocol == Protocol::Udp || *fields.get(3)? == "0A";
        let wanted = mapping.address.addresses();
        let in_the_way = |wanted: &IpAddr| {
            // A socket of all IPv6 addresses may have those of IPv4, too.
            *wanted == at.ip() || wanted.is_unspecified() || at.ip().is_unspecified()
        };
        let found = serves && at.port() == port && wanted.iter().any(in_the_way);
        found.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

/// Addresses are words of the machine's byte order, in hexadecimal.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address = match address.len() {
        8 => IpAddr::from(word(0)?.to_ne_bytes()),
        32 => {
            let mut bytes = [0; 16];
            for (n, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(n * 8)?.to_ne_bytes());
            }
            IpAddr::from(bytes)
        }
        _ => return None,
    };
    Some(SocketAddr::new(
        address,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn who_has_a_port_is_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let udp = UdpSocket::bind(("::1", 0)).ok();
        let me = std::process::id();
        let found = |text: String, port| listener(&text.parse().unwrap(), port);
        for address in ["", "127.0.0.1:", "localhost:", "0.0.0.0:"] {
            let (pid, name) = found(format!("{address}{port}:1"), port).unwrap();
            assert_eq!(pid, me);
            assert!(!name.is_empty());
        }
        assert_eq!(found(format!("127.0.0.2:{port}:1"), port), None);
        assert_eq!(found(format!("{port}:1/udp"), port), None);
        if let Some(udp) = udp {
            let port = udp.local_addr().unwrap().port();
            assert_eq!(found(format!("[::1]:{port}:1/udp"), port).unwrap().0, me);
        }
        drop(tcp);
        assert_eq!(found(format!("{port}:1"), port), None);
    }

    #[test]
    fn the_hosts_addresses_are_known() {
        assert!(all().contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
