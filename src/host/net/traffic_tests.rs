//! Who reaches whom: a host, a guest and somebody outside, each a namespace with a TCP stack of its own.
//!
//! The guest is not a VM: frames of the network's tap are carried to a tap in the guest's namespace, as a
//! device and a driver would.

use super::isolation::{Namespace, isolated};
use super::tests::set_up;
use super::*;
use crate::patience::{patience, seconds};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

fn soon() -> Duration {
    patience(Duration::from_millis(500))
}

pub(super) fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Carries frames both ways for as long as the test lasts.
fn carry(a: &Arc<TapQueue>, b: &Arc<TapQueue>) {
    let (a, b) = (a.clone(), b.clone());
    std::thread::spawn(move || {
        let mut frame = vec![0; 70_000];
        loop {
            let mut fds =
                [&a, &b].map(|queue| PollFd::from_borrowed_fd(queue.as_fd(), PollFlags::IN));
            let _ = poll(&mut fds, None);
            for (from, to) in [(&a, &b), (&b, &a)] {
                while let Ok(bytes) = rustix::io::read(from.as_fd(), &mut frame) {
                    let _ = rustix::io::write(to.as_fd(), &frame[..bytes]);
                }
            }
        }
    });
}

/// The other end of a tap: an interface with this address in another namespace.
pub(super) fn far_end(
    namespace: &Namespace,
    near: &Arc<TapQueue>,
    address: &str,
    gateway: &str,
) -> Tap {
    let tap = namespace.run(|| {
        let tap = Tap::create("eth0", 1).unwrap();
        ip("link set lo up");
        ip(&format!("addr add {address} dev eth0"));
        ip("link set eth0 up");
        ip(&format!("route add default via {gateway}"));
        tap
    });
    carry(near, &tap.queues()[0]);
    tap
}

/// A server that first tells its clients who they are to it, then sends back what they send.
pub(super) fn serve_tcp(listener: TcpListener) {
    // Connections beyond the backlog would be lost silently.
    rustix::net::listen(&listener, 1024).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // Some clients have gone again before this.
                let Ok(peer) = stream.peer_addr() else {
                    return;
                };
                let _ = writeln!(stream, "{}", peer.ip());
                let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
}

pub(super) fn serve_udp(socket: UdpSocket) {
    std::thread::spawn(move || {
        let mut datagram = [0; 100];
        while let Ok((_, peer)) = socket.recv_from(&mut datagram) {
            socket
                .send_to(peer.ip().to_string().as_bytes(), peer)
                .unwrap();
        }
    });
}

pub(super) fn connect(address: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address.parse::<SocketAddr>().unwrap(), soon())?;
    stream.set_read_timeout(Some(seconds(10)))?;
    Ok(stream)
}

/// Whom a server sees when this thread connects to it, after it has sent back a lot.
pub(super) fn seen_by(address: &str) -> String {
    let mut stream = connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    let mut writer = stream.try_clone().unwrap();
    let sent: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let mut reader = BufReader::new(&mut stream);
    let mut peer = String::new();
    reader.read_line(&mut peer).unwrap();
    let mut received = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        reader.read_to_end(&mut received).unwrap();
    });
    assert!(
        received == sent,
        "{} of {} bytes",
        received.len(),
        sent.len()
    );
    peer.trim().into()
}

pub(super) fn seen_by_udp(address: &str) -> Option<String> {
    let any = if address.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(soon())).unwrap();
    socket.connect(address).unwrap();
    socket.send(b"who am I?").unwrap();
    let mut datagram = [0; 100];
    let bytes = socket.recv(&mut datagram).ok()?;
    Some(String::from_utf8_lossy(&datagram[..bytes]).into())
}

pub(super) struct World {
    pub(super) guest: Namespace,
    pub(super) outside: Namespace,
    pub(super) network: Network,
    _taps: [Tap; 3],
    pub(super) runtime: tempfile::TempDir,
}

/// The host is 192.0.2.2 to the outside, which is 192.0.2.1. Guest and outside serve TCP on 80, and UDP on 53.
pub(super) fn world(publish: &[&str]) -> World {
    world_with(super::tests::net(publish))
}

/// As above, with any interface for the guest.
pub(super) fn world_with(config: Net) -> World {
    ip("link set lo up");
    let uplink = Tap::create("uplink", 1).unwrap();
    ip("addr add 192.0.2.2/24 dev uplink");
    ip("link set uplink up");
    ip("route add default via 192.0.2.1");
    let (outside, guest) = (Namespace::new(), Namespace::new());
    let outside_tap = far_end(&outside, &uplink.queues()[0], "192.0.2.1/24", "192.0.2.2");
    let runtime = tempfile::tempdir().unwrap();
    let mut network = set_up(&config, runtime.path()).unwrap();
    // What may be missing in the network of this test is not what it is about.
    network
        .warnings
        .retain(|warning| !warning.contains("/etc/resolv.conf"));
    network.serve().unwrap();
    let guest_tap = far_end(&guest, &network.queues()[0], "10.107.0.2/30", "10.107.0.1");
    for namespace in [&guest, &outside] {
        namespace.run(|| {
            serve_tcp(TcpListener::bind("0.0.0.0:80").unwrap());
            serve_udp(UdpSocket::bind("0.0.0.0:53").unwrap());
        });
    }
    World {
        guest,
        outside,
        network,
        _taps: [uplink, outside_tap, guest_tap],
        runtime,
    }
}

#[test]
fn published_ports_and_nothing_else_are_reached() {
    isolated(
        "net::traffic_tests::published_ports_and_nothing_else_are_reached",
        || {
            let world = world(&["8080:80", "8081:81", "5353:53/udp", "127.0.0.1:8082:80"]);
            assert_eq!(world.network.warnings(), [] as [String; 0]);
            // Where nobody listens in the guest, the client is told, if not at once: the service may be starting.
            let mut stream = connect("127.0.0.1:8081").unwrap();
            let refused = std::thread::spawn(move || {
                stream.set_read_timeout(Some(seconds(60))).unwrap();
                stream.read(&mut [0])
            });
            // From the host itself, by the proxy, and directly.
            for address in [
                "127.0.0.1:8080",
                "192.0.2.2:8080",
                "127.0.0.1:8082",
                "10.107.0.2:80",
            ] {
                assert_eq!(seen_by(address), "10.107.0.1", "{address}");
            }
            for address in ["127.0.0.1:5353", "192.0.2.2:5353"] {
                assert_eq!(
                    seen_by_udp(address).as_deref(),
                    Some("10.107.0.1"),
                    "{address}"
                );
            }
            // From outside, by DNAT, and not by other ways.
            world.outside.run(|| {
                assert_eq!(seen_by("192.0.2.2:8080"), "192.0.2.1");
                assert_eq!(seen_by_udp("192.0.2.2:5353").as_deref(), Some("192.0.2.1"));
                assert!(connect("10.107.0.2:80").is_err(), "the guest itself");
                assert!(
                    connect("192.0.2.2:8082").is_err(),
                    "published on loopback only"
                );
                assert_eq!(seen_by_udp("10.107.0.2:53"), None);
            });
            let error = refused.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            // When the VM ends, so do its ports.
            drop(world.network);
            assert!(connect("127.0.0.1:8080").is_err());
        },
    );
}

/// The connection of a client that waits for the guest's service, which begins now.
fn serve<T>(guest: &Namespace, client: &ScopedJoinHandle<T>) -> TcpStream {
    let listener = guest.run(|| TcpListener::bind("0.0.0.0:81").unwrap());
    listener.set_nonblocking(true).unwrap();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        // Nobody else would come.
        assert!(!client.is_finished(), "the client has given up");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_comes_before_the_service_waits_for_it() {
    let name = "net::traffic_tests::who_comes_before_the_service_waits_for_it";
    isolated(name, || {
        let world = world(&["8081:81"]);
        let guest = &world.guest;
        let ask = || {
            let mut answer = String::new();
            // A refusal may be there before the connection is known to be.
            let mut stream = connect("127.0.0.1:8081")?;
            stream.set_read_timeout(Some(seconds(30)))?;
            stream.read_to_string(&mut answer).map(|_| answer)
        };
        // The guest's interface is down, then up with nobody who listens, then somebody does.
        guest.run(|| ip("link set eth0 down"));
        std::thread::scope(|scope| {
            let client = scope.spawn(ask);
            std::thread::sleep(Duration::from_millis(200));
            guest.run(|| ip("link set eth0 up"));
            std::thread::sleep(Duration::from_millis(1500));
            assert!(!client.is_finished());
            let mut stream = serve(guest, &client);
            stream.write_all(b"hello").unwrap();
            drop(stream);
            assert_eq!(client.join().unwrap().unwrap(), "hello");
        });
        // One that has served, and does not answer for longer than ARP asks, is waited for.
        guest.run(|| ip("link set eth0 down"));
        ip("neigh flush dev kvmlet0");
        std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut stream = connect("127.0.0.1:8081").unwrap();
                stream.set_read_timeout(Some(seconds(30))).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).map(|_| answer)
            });
            std::thread::sleep(Duration::from_millis(4500));
            assert!(!client.is_finished());
            guest.run(|| ip("link set eth0 up"));
            guest.run(|| ip("route replace default via 10.107.0.1"));
            let mut stream = serve(guest, &client);
            stream.write_all(b"again").unwrap();
            drop(stream);
            assert_eq!(client.join().unwrap().unwrap(), "again");
        });
        // One that has served, and no longer does, refuses at once.
        let since = std::time::Instant::now();
        let error = ask().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(since.elapsed() < seconds(3));
    });
}

#[test]
fn a_guest_reaches_out_but_not_in() {
    isolated("net::traffic_tests::a_guest_reaches_out_but_not_in", || {
        let world = world(&["8080:80"]);
        let _host = TcpListener::bind("0.0.0.0:9999").unwrap();
        world.guest.run(|| {
            assert_eq!(seen_by("192.0.2.1:80"), "192.0.2.2", "as the host");
            assert_eq!(seen_by_udp("192.0.2.1:53").as_deref(), Some("192.0.2.2"));
            // Published ports, its own even.
            assert_eq!(seen_by("192.0.2.2:8080"), "10.107.0.1");
            for address in ["10.107.0.1:9999", "192.0.2.2:9999"] {
                assert!(connect(address).is_err(), "{address}");
            }
            let ping = |address| {
                let output = Command::new("ping").args(["-c1", "-W1", address]).output();
                output.map_or(true, |output| output.status.success())
            };
            assert!(ping("10.107.0.1"));
            // With an address that is not its own it reaches nothing.
            ip("addr add 10.9.9.9/32 dev eth0");
            ip("route replace default via 10.107.0.1 src 10.9.9.9");
        });
        // Sent from outside's point of view: it answers to 10.9.9.9 by way of the host, if it hears anything.
        ip("route add 10.9.9.9 dev kvmlet0");
        world
            .guest
            .run(|| assert_eq!(seen_by_udp("192.0.2.1:53"), None));
    });
}
