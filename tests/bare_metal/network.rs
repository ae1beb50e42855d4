//! A network interface driven by someone else's driver, on a real tap in a network namespace of the test's own.

use crate::harness::{DEADLINE, Guest, Test};
use kvmlet::ExitReason;
use kvmlet::config::Net;
use std::ffi::CString;
use std::io::{Read, Write};
use std::time::Instant;

pub const TESTS: &[Test] = &[("virtio_net_echoes_frames_of_a_tap", echo)];

/// The entropy source has the first slot, the interface the one behind.
const CMDLINE: &str = "mmio=0xd0002000";
/// Local experimental Ethertype 1 (IEEE 802), which the guest echoes.
const ETHERTYPE: u16 = 0x88b5;
const HEADER_BYTES: usize = 14;

fn echo() {
    // A thread of its own: a network namespace belongs to a thread, and this one ends with the test.
    std::thread::spawn(|| {
        // SAFETY: no memory is involved; this thread moves to a new, empty namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            eprintln!(
                "SKIPPED: no network namespace for a test: {}",
                std::io::Error::last_os_error()
            );
            return;
        }
        let guest = Guest::boot_with("virtio_net", |c| c.cmdline(CMDLINE).net(Net::default()));
        guest.output.expect("mac=");
        let mut socket = packet_socket(&tap());
        for length in [46, 200, 1000, 1500] {
            let payload: Vec<u8> = (0..length).map(|n| (n * 7 + length) as u8).collect();
            socket.write_all(&frame(&payload)).unwrap();
            assert_eq!(receive(&mut socket), payload, "{length} bytes");
        }
        let sent = 4;
        socket
            .write_all(&frame(
                b"quit, and fill the frame up to the least size that it has",
            ))
            .unwrap();
        let (interfaces, stats) = (guest.vm.interfaces().count(), guest.vm.stats());
        let (reason, output) = guest.finish();
        assert_eq!((reason, interfaces), (ExitReason::Shutdown { code: 0 }, 1));
        assert!(output.contains(&format!("echoed={sent}")), "{output}");
        assert!(stats.interfaces[0].transmit.frames >= sent, "{stats:?}");
    })
    .join()
    .unwrap();
}

/// The tap that kvmlet has made here: the only one.
fn tap() -> CString {
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

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The payload of the next frame that the guest has sent back: it comes with the addresses exchanged.
fn receive(socket: &mut std::fs::File) -> Vec<u8> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut buffer = [0; 2048];
        match socket.read(&mut buffer) {
            Ok(count) if buffer[..6] == [0x02, 0, 0, 0, 0, 2] => {
                return buffer[HEADER_BYTES..count].to_vec();
            }
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        assert!(Instant::now() < deadline, "no frame came back");
    }
}

/// A socket for frames of one type on one interface (packet(7)), which waits at most a while.
fn packet_socket(interface: &CString) -> std::fs::File {
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
