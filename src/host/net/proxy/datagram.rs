//! Datagrams with the host's address that they were sent to (ip(7), IP_PKTINFO; ipv6(7), IPV6_PKTINFO).
//!
//! A socket of all addresses would answer from the one that the route suggests, and a client does not take an answer
//! from an address that it has not asked.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

/// Room for one control message of either family, aligned as they must be.
type Control = [u64; 8];

/// Has a socket tell where its datagrams were sent to.
pub(super) fn tell_destination(socket: &UdpSocket) -> io::Result<()> {
    if socket.local_addr()?.is_ipv4() {
        return set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO);
    }
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
}

fn set(socket: &UdpSocket, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let one: libc::c_int = 1;
    let (value, size) = ((&raw const one).cast(), size_of_val(&one) as u32);
    // SAFETY: the options read an int.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The next datagram's size, its sender, and the address that it was sent to.
pub(super) fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    // SAFETY: both are plain data, for which zeros are valid.
    let (mut name, mut header) =
        unsafe { (zeroed::<libc::sockaddr_in6>(), zeroed::<libc::msghdr>()) };
    let mut control: Control = [0; 8];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the header points to memory of the sizes that it says, which lives until the call returns.
    let bytes = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    let at = destination(&header);
    let peer = peer(&name).ok_or(io::ErrorKind::InvalidData)?;
    Ok((bytes, peer, at))
}

fn destination(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel has filled the header's control buffer, which is the caller's and alive.
    let message = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    // SAFETY: as above; the data follows the message's header.
    let data = unsafe { libc::CMSG_DATA(message) };
    match (message.cmsg_level, message.cmsg_type) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // SAFETY: of this type the data is an in_pktinfo.
            let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
            let address = Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr));
            Some(address.into())
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            // SAFETY: of this type the data is an in6_pktinfo.
            let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
        }
        _ => None,
    }
}

fn peer(name: &libc::sockaddr_in6) -> Option<SocketAddr> {
    match libc::c_int::from(name.sin6_family) {
        libc::AF_INET => {
            // SAFETY: the kernel has written a sockaddr_in, which is smaller, there.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddrV4::new(address, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(SocketAddrV6::new(address, port, 0, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Sends a datagram from an address of the host, or from that which the route suggests.
pub(super) fn send(
    socket: &UdpSocket,
    bytes: &[u8],
    to: SocketAddr,
    from: Option<IpAddr>,
) -> io::Result<()> {
    let (mut name, size) = name_of(to);
    // SAFETY: it is plain data, for which zeros are valid.
    let mut header = unsafe { zeroed::<libc::msghdr>() };
    let mut control: Control = [0; 8];
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    if let Some(from) = from {
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = size_of::<Control>() as _;
        header.msg_controllen = put_source(&header, from) as _;
    }
    // SAFETY: the header points to memory of the sizes that it says, which lives until the call returns.
    match unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An address as the kernel takes it, and how much of that is used, in bytes.
fn name_of(address: SocketAddr) -> (libc::sockaddr_in6, usize) {
    // SAFETY: it is plain data, for which zeros are valid.
    let mut name = unsafe { zeroed::<libc::sockaddr_in6>() };
    match address {
        SocketAddr::V4(address) => {
            let short: *mut libc::sockaddr_in = (&raw mut name).cast();
            // SAFETY: a sockaddr_in is smaller than the sockaddr_in6 that it is written to.
            unsafe {
                (*short).sin_family = libc::AF_INET as libc::sa_family_t;
                (*short).sin_port = address.port().to_be();
                (*short).sin_addr.s_addr = address.ip().to_bits().to_be();
            }
            (name, size_of::<libc::sockaddr_in>())
        }
        SocketAddr::V6(address) => {
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = address.port().to_be();
            name.sin6_addr.s6_addr = address.ip().octets();
            name.sin6_scope_id = address.scope_id();
            (name, size_of::<libc::sockaddr_in6>())
        }
    }
}

/// Writes the address to send from into a header's control buffer, and returns how much of that is used.
fn put_source(header: &libc::msghdr, from: IpAddr) -> usize {
    /// # Safety
    /// The header has a control buffer with room for the data.
    unsafe fn put<T>(
        header: &libc::msghdr,
        level: libc::c_int,
        kind: libc::c_int,
        data: T,
    ) -> usize {
        let bytes = size_of::<T>() as u32;
        // SAFETY: the caller's promise.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(header);
            (*message).cmsg_level = level;
            (*message).cmsg_type = kind;
            (*message).cmsg_len = libc::CMSG_LEN(bytes) as _;
            libc::CMSG_DATA(message).cast::<T>().write_unaligned(data);
            libc::CMSG_SPACE(bytes) as usize
        }
    }
    match from {
        IpAddr::V4(from) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: from.to_bits().to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            // SAFETY: a Control has room for it.
            unsafe { put(header, libc::IPPROTO_IP, libc::IP_PKTINFO, info) }
        }
        IpAddr::V6(from) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: from.octets(),
                },
                ipi6_ifindex: 0,
            };
            // SAFETY: a Control has room for it.
            unsafe { put(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info) }
        }
    }
}
