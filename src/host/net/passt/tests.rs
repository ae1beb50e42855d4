//! The real passt, between a guest's TCP stack in a namespace of its own and somebody outside in another.

use super::super::isolation::{Namespace, isolated};
use super::super::traffic_tests::{far_end, ip};
use super::*;
use crate::patience::{patience, seconds};
use kvmlet_sys::wait::{self, Slot, Until};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

fn soon() -> Duration {
    patience(Duration::from_millis(500))
}

/// Somebody outside, at 198.51.100.1 behind the host's default route, and at 192.0.2.1 beside the host.
fn outside() -> Namespace {
    let outside = Namespace::new();
    ip("link set lo up");
    let uplink = super::super::Tap::create("uplink", 1).unwrap();
    ip("addr add 192.0.2.2/24 dev uplink");
    ip("link set uplink up");
    ip("route add default via 192.0.2.1");
    let far = far_end(&outside, &uplink.queues()[0], "192.0.2.1/24", "192.0.2.2");
    outside.run(|| ip("addr add 198.51.100.1/32 dev lo"));
    outside.run(|| ip("addr add 10.9.9.9/32 dev lo"));
    std::mem::forget((uplink, far));
    outside
}

/// A guest, and the network that it has.
fn guest_with(config: &str, publish: &[&str]) -> (Namespace, Network) {
    let mut config: Net = config.parse().unwrap();
    config.publish = publish.iter().map(|text| text.parse().unwrap()).collect();
    guest_of(config)
}

fn guest_of(config: Net) -> (Namespace, Network) {
    let mut network = Network::set_up(&config, None).unwrap();
    network.serve().unwrap();
    let told = network.interface().guest.clone().unwrap();
    let guest = Namespace::new();
    let tap = guest.run(|| {
        let tap = super::super::Tap::create("eth0", 1).unwrap();
        ip("link set lo up");
        ip(&format!(
            "link set eth0 address {}",
            network.interface().mac
        ));
        ip(&format!(
            "addr add {}/{} dev eth0",
            told.address, told.prefix
        ));
        ip("link set eth0 up");
        ip(&format!("route add default via {}", told.gateway));
        tap
    });
    carry_frames(network.socket().unwrap().clone(), tap);
    (guest, network)
}

/// Carries frames both ways for as long as the test lasts.
fn carry_frames(socket: Arc<FrameSocket>, tap: super::super::Tap) {
    std::thread::spawn(move || {
        let mut frame = vec![0; 70_000];
        let queue = tap.queues()[0].clone();
        loop {
            let slots = [socket.as_fd(), queue.as_fd()].map(Slot::readable);
            let _ = wait::any(slots, Until::Forever);
            while let Ok(bytes @ 1..) = rustix::io::read(&*socket, &mut frame) {
                let _ = rustix::io::write(queue.as_fd(), &frame[..bytes]);
            }
            while let Ok(bytes @ 1..) = rustix::io::read(queue.as_fd(), &mut frame) {
                while rustix::io::write(&*socket, &frame[..bytes]) == Err(rustix::io::Errno::AGAIN)
                {
                    let _ = wait::one(Slot::writable(socket.as_fd()), Until::Forever);
                }
            }
        }
    });
}

/// Listens and answers each connection with who has come.
fn greet(at: &str) {
    let listener = TcpListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    });
}

fn greeting(of: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&of.parse().unwrap(), soon()).ok()?;
    stream.set_read_timeout(Some(seconds(10))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn echo(at: &str) {
    let socket = UdpSocket::bind(at).unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((bytes, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..bytes], from);
        }
    });
}

fn answers(to: &str) -> bool {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(soon())).unwrap();
    // A datagram may be lost.
    (0..3).any(|_| socket.send(b"datagram").is_ok() && matches!(socket.recv(&mut [0; 100]), Ok(8)))
}

#[test]
fn a_guest_reaches_the_internet_and_neither_this_host_nor_private_networks() {
    isolated(
        "net::passt::tests::a_guest_reaches_the_internet_and_neither_this_host_nor_private_networks",
        || {
            let outside = outside();
            outside.run(|| greet("0.0.0.0:80"));
            outside.run(|| echo("198.51.100.1:5000"));
            greet("0.0.0.0:81");
            let (guest, network) = guest_with("passt", &[]);
            let told = network.interface().guest.as_ref().unwrap();
            assert_eq!(told.address, Ipv4Addr::new(10, 107, 255, 254));
            guest.run(|| {
                // As the host.
                assert_eq!(greeting("198.51.100.1:80").as_deref(), Some("192.0.2.2"));
                assert!(answers("198.51.100.1:5000"));
                for own in ["192.0.2.2:81", "127.0.0.1:81", "10.107.255.253:81"] {
                    assert_eq!(greeting(own), None, "{own}");
                }
                assert_eq!(greeting("10.9.9.9:80"), None, "a private network");
            });
            // A hostile guest would have the packet to this host's loopback leave by its interface.
            guest.run(|| {
                ip("addr del 127.0.0.1/8 dev lo");
                ip("route add 127.0.0.0/8 via 10.107.255.253");
                std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
                assert_eq!(greeting("127.0.0.1:81"), None);
            });
            drop(network);
            let (guest, _network) = guest_with("passt,egress=all", &[]);
            guest.run(|| {
                assert_eq!(greeting("10.9.9.9:80").as_deref(), Some("192.0.2.2"));
                assert_eq!(greeting("192.0.2.2:81"), None);
            });
            let (guest, _network) = guest_with("passt,egress=none", &[]);
            guest.run(|| assert_eq!(greeting("198.51.100.1:80"), None));
        },
    );
}

#[test]
fn published_ports_lead_to_the_guest_whoever_asks() {
    isolated(
        "net::passt::tests::published_ports_lead_to_the_guest_whoever_asks",
        || {
            let outside = outside();
            let publish = [
                "8080:80",
                "localhost:8081:80",
                "192.0.2.2:8082:80",
                "80",
                "8083:83/udp",
            ];
            let (guest, network) = guest_with("passt,egress=none", &publish);
            guest.run(|| greet("0.0.0.0:80"));
            guest.run(|| greet("0.0.0.0:8080"));
            guest.run(|| echo("10.107.255.254:83"));
            let chosen = match network.published()[3].host {
                HostPort::Fixed(port) => port.get(),
                other => panic!("{other:?}"),
            };
            // Clients on this host are shown as the gateway, or by the host's address that they have.
            for port in [8080, 8081, chosen] {
                let at = format!("127.0.0.1:{port}");
                assert_eq!(greeting(&at).as_deref(), Some("10.107.255.253"), "{at}");
            }
            assert_eq!(greeting("192.0.2.2:8082").as_deref(), Some("192.0.2.2"));
            assert!(answers("127.0.0.1:8083") && answers("192.0.2.2:8083"));
            assert_eq!(greeting("127.0.0.1:8082"), None);
            outside.run(|| {
                for port in [8080, 8082, chosen] {
                    let at = format!("192.0.2.2:{port}");
                    assert_eq!(greeting(&at).as_deref(), Some("192.0.2.1"), "{at}");
                }
                assert!(answers("192.0.2.2:8083"));
                assert_eq!(greeting("192.0.2.2:8081"), None);
            });
            // The port is free again, and the next VM may have it.
            drop(network);
            TcpListener::bind("0.0.0.0:8080").unwrap();
        },
    );
}

#[test]
fn guests_find_names_by_the_hosts_server() {
    isolated(
        "net::passt::tests::guests_find_names_by_the_hosts_server",
        || {
            let _outside = outside();
            echo("127.0.0.1:53");
            echo("192.0.2.2:53");
            for server in ["127.0.0.1", "192.0.2.2"] {
                let mut config: Net = "passt".parse().unwrap();
                config.dns = vec![server.parse().unwrap()];
                let (guest, network) = guest_of(config);
                let told = network.interface().guest.as_ref().unwrap();
                assert_eq!(told.dns, [told.gateway]);
                let gateway = told.gateway;
                guest.run(|| assert!(answers(&format!("{gateway}:53")), "{server}"));
                assert_eq!(network.warnings(), [] as [String; 0]);
            }
            let mut config: Net = "passt".parse().unwrap();
            config.dns = vec!["::1".parse().unwrap()];
            let (_guest, network) = guest_of(config);
            assert!(network.warnings()[0].contains("look up no names"));
            assert!(network.interface().guest.as_ref().unwrap().dns.is_empty());
        },
    );
}

#[test]
fn what_is_in_the_way_of_passt_is_named() {
    isolated(
        "net::passt::tests::what_is_in_the_way_of_passt_is_named",
        || {
            ip("link set lo up");
            let refused = |config: &str, publish: &[&str]| {
                let mut config: Net = config.parse().unwrap();
                config.publish = publish.iter().map(|text| text.parse().unwrap()).collect();
                let mut network = match Network::set_up(&config, None) {
                    Err(error) => {
                        return (error.to_string(), error.help().map(|help| help.to_string()));
                    }
                    Ok(network) => network,
                };
                let error = network.relay().err().unwrap();
                (error.to_string(), error.help().map(|help| help.to_string()))
            };
            let (error, help) = refused("passt", &[]);
            assert!(
                error.contains("does not start: No external routable interface"),
                "{error}"
            );
            assert!(help.unwrap().contains("default route"));
            let _outside = outside();
            let _taken = TcpListener::bind("127.0.0.1:8080").unwrap();
            let (error, _) = refused("passt", &["8080:80"]);
            assert!(
                error.starts_with("cannot publish 0.0.0.0:8080:80/tcp: process "),
                "{error}"
            );
            let (error, help) = refused("passt", &["[::1]:8081:80"]);
            assert!(error.contains("IPv4 only"), "{error}");
            assert!(help.unwrap().contains("address of IPv4"));
            // Somebody is quicker than passt.
            let mut config: Net = "passt".parse().unwrap();
            config.publish = vec!["8082:80".parse().unwrap()];
            let program = find().unwrap();
            let interface = Interface {
                mac: MacAddress::local([0; 5]),
                mtu: None,
                guest: None,
            };
            let _quicker = TcpListener::bind("0.0.0.0:8082").unwrap();
            let subnet = next_subnet();
            let arguments = arguments(subnet, &interface, &[], &config.publish);
            let (process, stream) = Process::start(&program, &arguments).unwrap();
            let error = process
                .await_start(&stream, interface.mac, subnet)
                .unwrap_err();
            assert!(
                error.to_string().contains("does not start: Failed to bind"),
                "{error}"
            );
        },
    );
}

#[test]
fn passt_ends_with_its_neighbours_and_they_with_it() {
    isolated(
        "net::passt::tests::passt_ends_with_its_neighbours_and_they_with_it",
        || {
            let _outside = outside();
            let start = || {
                let mut network = Network::set_up(&"passt".parse().unwrap(), None).unwrap();
                let (relay, process) = network.relay().unwrap().unwrap();
                assert!(network.relay().unwrap().is_none());
                (network, relay, process)
            };
            let has_ended = |process: &Process| {
                let until = Until::after(seconds(10));
                wait::one(Slot::readable(process.as_fd()), until).unwrap()
            };
            let (_network, relay, process) = start();
            let still = Until::after(Duration::from_millis(100));
            assert!(!wait::one(Slot::readable(process.as_fd()), still).unwrap());
            drop(relay);
            assert!(has_ended(&process), "its socket is closed");
            assert_eq!(process.ended(), "has ended");
            let (network, relay, process) = start();
            let (ended, end) = std::io::pipe().unwrap();
            let carrying = std::thread::spawn(move || carry(vec![relay], ended.as_fd()));
            process.kill();
            assert!(has_ended(&process));
            assert_eq!(process.ended(), "was killed by signal 9");
            // Its VM has no network any more, and nobody waits for one.
            let socket = network.socket().unwrap();
            assert!(wait::one(Slot::readable(socket.as_fd()), Until::after(seconds(10))).unwrap());
            assert_eq!(rustix::io::read(&**socket, &mut [0; 10]), Ok(0));
            drop(end);
            carrying.join().unwrap().unwrap();
            // One that was never carried.
            let network = Network::set_up(&"passt".parse().unwrap(), None).unwrap();
            drop(network);
            let children = std::fs::read_to_string("/proc/self/task/self/children");
            assert_eq!(children.unwrap_or_default(), "");
        },
    );
}
