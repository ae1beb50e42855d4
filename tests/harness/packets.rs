//! Ethernet frames between a test and a tap, in a network namespace of the test's own.

use std::ffi::CString;

/// Local experimental Ethertype 1 (IEEE 802), which the guest echoes.
const ETHERTYPE: u16 = 0x88b5;

/// Moves this thread to a network namespace with nothing in it.
pub fn enter_own_network() -> Result<(), String> {
    // SAFETY: no memory is involved; this thread moves to a new, empty namespace.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(format!(
            "no network namespace of one's own: {}",
            std::io::Error::last_os_error()
        )),
    }
}

/// The tap that kvmlet has made here: the only one.
pub fn tap() -> CString {
    let interfaces = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let mut names = interfaces
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim());
    CString::new(
        names
            .find(|name| name.starts_with("kvmlet"))
            .expect(&interfaces),
    )
    .unwrap()
}

/// A frame that the guests of the tests take for one of theirs.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A socket for frames of one type on one interface (packet(7)), which waits at most a while.
pub fn packet_socket(interface: &CString) -> std::fs::File {
    use std::os::fd::{AsRawFd, FromRawFd};
    let protocol = ETHERTYPE.to_be();
    // SAFETY: plain system calls; the structures are initialized and of the sizes given, and the descriptor
    // is new and owned by the file made of it.
    unsafe {
        let fd = libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            protocol.into(),
        );
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        let file = std::fs::File::from_raw_fd(fd);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(interface.as_ptr()) as i32;
        let size = size_of_val(&address) as u32;
        assert_eq!(
            libc::bind(file.as_raw_fd(), (&raw const address).cast(), size),
            0
        );
        let wait = libc::timeval {
            tv_sec: 0,
            tv_usec: 100_000,
        };
        let size = size_of_val(&wait) as u32;
        let option = (&raw const wait).cast();
        assert_eq!(
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, option, size),
            0
        );
        file
    }
}
