//! Published ports: who reaches them, and that nobody keeps others out.

use super::isolation::isolated;
use super::tests::set_up;
use super::traffic_tests::{World, connect, ip, seen_by, seen_by_udp, serve_tcp, world};
use super::*;
use crate::patience::seconds;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// What never happens takes this long to be noticed.
fn long() -> Duration {
    seconds(60)
}

/// Gives host and outside addresses of IPv6, two to the host.
fn with_ipv6(world: &World) {
    for address in ["2001:db8::2/64", "2001:db8::3/64"] {
        ip(&format!("addr add {address} dev uplink nodad"));
    }
    world
        .outside
        .run(|| ip("addr add 2001:db8::1/64 dev eth0 nodad"));
}

/// Runs `body` on a thread whose sockets are another user's.
fn as_user<T: Send>(user: u32, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: it concerns this thread only, which ends soon.
            unsafe { libc::setfsuid(user) };
            body()
        });
        thread.join().unwrap()
    })
}

#[test]
fn ports_are_reached_by_ipv6() {
    let name = "net::port_tests::ports_are_reached_by_ipv6";
    isolated(name, || {
        let ports = [
            "8080:80",
            "5353:53/udp",
            "localhost:8081:80",
            "[::1]:8082:80",
        ];
        let world = world(&[&ports[..], &["localhost:5354:53/udp", "0.0.0.0:8083:80"]].concat());
        with_ipv6(&world);
        for address in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "[2001:db8::2]:8080",
            "127.0.0.1:8081",
            "[::1]:8081",
            "[::1]:8082",
            "192.0.2.2:8083",
        ] {
            assert_eq!(seen_by(address), "10.107.0.1", "{address}");
        }
        for address in [
            "127.0.0.1:8082",
            "192.0.2.2:8081",
            "[2001:db8::2]:8081",
            "[::1]:8083",
        ] {
            assert!(connect(address).is_err(), "{address}");
        }
        let here = Some("10.107.0.1");
        for address in [
            "[::1]:5353",
            "127.0.0.2:5353",
            "[2001:db8::3]:5353",
            "[::1]:5354",
        ] {
            assert_eq!(seen_by_udp(address).as_deref(), here, "{address}");
        }
        assert_eq!(seen_by_udp("[2001:db8::2]:5354"), None);
        world.outside.run(|| {
            for address in ["[2001:db8::2]:8080", "[2001:db8::3]:8080"] {
                assert_eq!(seen_by(address), "10.107.0.1", "{address}");
            }
            assert_eq!(seen_by("192.0.2.2:8083"), "192.0.2.1", "by DNAT");
            // The answer comes from the address that was asked, whichever the route suggests.
            for address in ["[2001:db8::2]:5353", "[2001:db8::3]:5353"] {
                assert_eq!(seen_by_udp(address).as_deref(), here, "{address}");
            }
            for address in ["192.0.2.2:8081", "[2001:db8::2]:8081", "[2001:db8::2]:8083"] {
                assert!(connect(address).is_err(), "{address}");
            }
        });
    });
}

#[test]
fn a_host_without_ipv6_publishes_for_ipv4() {
    let name = "net::port_tests::a_host_without_ipv6_publishes_for_ipv4";
    isolated(name, || {
        for interface in ["all", "lo"] {
            let file = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
            std::fs::write(file, "1").unwrap();
        }
        let _world = world(&["8080:80", "localhost:8081:80"]);
        assert_eq!(seen_by("127.0.0.1:8080"), "10.107.0.1");
        assert_eq!(seen_by("127.0.0.1:8081"), "10.107.0.1");
    });
}

/// Ends a connection with a reset.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

#[test]
fn resets_and_half_closes_are_passed_on() {
    let name = "net::port_tests::resets_and_half_closes_are_passed_on";
    isolated(name, || {
        let world = world(&["8080:80", "8090:90"]);
        let listener = world.guest.run(|| TcpListener::bind("0.0.0.0:90").unwrap());
        let pair = || {
            let client = connect("127.0.0.1:8090").unwrap();
            let (server, _) = listener.accept().unwrap();
            server.set_read_timeout(Some(long())).unwrap();
            (client, server)
        };
        let (client, mut server) = pair();
        reset(client);
        let error = server.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let (mut client, server) = pair();
        reset(server);
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        // One side has said all, and is answered; even if that is before the guest is reached.
        for _ in 0..20 {
            let mut client = connect("127.0.0.1:8090").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
            server.write_all(b"late").unwrap();
            drop(server);
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "late");
        }
        let (mut client, mut server) = pair();
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        client.write_all(b"more").unwrap();
        drop(client);
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "more");
        // A thousand that come and go, some rudely, leave nothing behind.
        for n in 0..1000 {
            let client = connect("127.0.0.1:8080").unwrap();
            if n % 2 == 0 {
                reset(client);
            }
        }
        assert_eq!(seen_by("127.0.0.1:8080"), "10.107.0.1");
    });
}

#[test]
fn a_reset_in_the_first_moment_is_passed_on() {
    let name = "net::port_tests::a_reset_in_the_first_moment_is_passed_on";
    isolated(name, || {
        let ports: Vec<_> = (100..150)
            .map(|port| format!("{}:{port}", 8000 + port))
            .collect();
        let world = world(&ports.iter().map(String::as_str).collect::<Vec<_>>());
        for port in 100..150 {
            let listener = world
                .guest
                .run(|| TcpListener::bind(("0.0.0.0", port)).unwrap());
            // Whether the proxy has seen that it is connected or not.
            let guest = std::thread::spawn(move || reset(listener.accept().unwrap().0));
            let client = connect(&format!("127.0.0.1:{}", 8000 + port));
            guest.join().unwrap();
            let error = client
                .and_then(|mut client| client.read(&mut [0]))
                .unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{port}");
        }
    });
}

#[test]
fn ranges_and_free_ports_are_found() {
    let name = "net::port_tests::ranges_and_free_ports_are_found";
    isolated(name, || {
        ip("link set lo up");
        let taken = [
            TcpListener::bind("127.0.0.1:9000").unwrap(),
            TcpListener::bind("[::1]:9001").unwrap(),
        ];
        let udp = UdpSocket::bind("127.0.0.1:9002").unwrap();
        let runtime = tempfile::tempdir().unwrap();
        let publish = |texts: &[&str]| {
            let mut config = Net::default();
            for text in texts {
                let mappings: crate::config::PortMappings = text.parse().unwrap();
                config.publish.extend(mappings);
            }
            let network = set_up(&config, runtime.path())?;
            let published = network.published().iter().map(PortMapping::to_string);
            Ok::<_, Error>((published.collect::<Vec<_>>(), network))
        };
        let (published, network) = publish(&[
            "9000-9003:80",
            "9000-9003:81",
            "8000-8002:80-82",
            "localhost::80",
            "80/udp",
        ])
        .unwrap();
        assert_eq!(
            published[..5],
            [
                "9002:80/tcp",
                "9003:81/tcp",
                "8000:80/tcp",
                "8001:81/tcp",
                "8002:82/tcp"
            ]
        );
        assert!(published[5].starts_with("localhost:"), "{published:?}");
        for chosen in &published[5..] {
            let mapping: PortMapping = chosen.parse().unwrap();
            assert!(matches!(mapping.host, crate::config::HostPort::Fixed(_)));
        }
        let error = publish(&["9000-9003:80"]).map(drop).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("cannot publish 9000-9003:80/tcp: process "),
            "{error}"
        );
        let error = publish(&["9002:80/udp"]).map(drop).unwrap_err().to_string();
        let me = format!("process {} (", std::process::id());
        assert!(error.contains(&me), "{error}");
        drop((network, taken, udp));
        let (published, _network) = publish(&["9000-9003:80"]).unwrap();
        assert_eq!(published, ["9000:80/tcp"]);
    });
}

#[test]
fn datagrams_of_one_user_push_out_their_own() {
    let name = "net::port_tests::datagrams_of_one_user_push_out_their_own";
    isolated(name, || {
        let world = world(&["5354:54/udp"]);
        let server = world.guest.run(|| UdpSocket::bind("0.0.0.0:54").unwrap());
        server.set_read_timeout(Some(long())).unwrap();
        let client = |user| {
            as_user(user, || {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect("127.0.0.1:5354").unwrap();
                socket.set_read_timeout(Some(long())).unwrap();
                socket.send(&user.to_le_bytes()).unwrap();
                socket
            })
        };
        let patient = client(1234);
        let mut bytes = [0; 4];
        let (_, asked) = server.recv_from(&mut bytes).unwrap();
        assert_eq!(u32::from_le_bytes(bytes), 1234);
        let _flood: Vec<UdpSocket> = (0..300).map(|_| client(0)).collect();
        // Its answer, which took its time, arrives all the same.
        server.send_to(b"done", asked).unwrap();
        assert_eq!(patient.recv(&mut bytes).unwrap(), 4);
        assert_eq!(&bytes, b"done");
    });
}

#[test]
fn a_guest_that_does_not_answer_does_not_hold_up_others() {
    let name = "net::port_tests::a_guest_that_does_not_answer_does_not_hold_up_others";
    isolated(name, || {
        let world = world(&["8080:80", "8091:91"]);
        // A backlog that is full leaves connections unanswered.
        let full = world.guest.run(|| TcpListener::bind("0.0.0.0:91").unwrap());
        rustix::net::listen(&full, 0).unwrap();
        let waiting: Vec<TcpStream> = (0..100)
            .map(|_| connect("127.0.0.1:8091").unwrap())
            .collect();
        assert_eq!(seen_by("127.0.0.1:8080"), "10.107.0.1");
        drop(waiting);
        serve_tcp(full);
        assert_eq!(seen_by("127.0.0.1:8091"), "10.107.0.1");
    });
}

#[path = "seat_tests.rs"]
mod seats;
