//! Names that a guest asks for, wherever the host's name servers are.

use super::isolation::{Namespace, isolated};
use super::tests::set_up;
use super::traffic_tests::{World, far_end, ip, world, world_with};
use super::*;
use crate::patience::{patience, seconds};
use std::ffi::CString;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// A name server that answers every question with its own number: 198.51.100.N.
fn serve(address: &str, number: u8) {
    let address: IpAddr = address.parse().unwrap();
    let udp = UdpSocket::bind((address, 53)).unwrap();
    let tcp = TcpListener::bind((address, 53)).unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 2048];
        while let Ok((bytes, peer)) = udp.recv_from(&mut question) {
            let mut answer = answer(&question[..bytes], number);
            // Somebody guesses, and is wrong.
            answer[0] ^= 0xff;
            udp.send_to(&answer, peer).unwrap();
            answer[0] ^= 0xff;
            let stranger = UdpSocket::bind((address, 0)).unwrap();
            let forged = super::name_tests::answer(&question[..bytes], 66);
            stranger.send_to(&forged, peer).unwrap();
            if question[12..].starts_with(b"\x04long") {
                // Truncated: the client asks again by TCP.
                answer[2] |= 2;
            }
            let _ = udp.send_to(&answer, peer);
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut question = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut question).unwrap();
                let answer = answer(&question, number);
                let length = (answer.len() as u16).to_be_bytes();
                stream.write_all(&[&length[..], &answer].concat()).unwrap();
            }
        }
    });
}

/// RFC 1035, 4.1: the question again, and an address.
fn answer(question: &[u8], number: u8) -> Vec<u8> {
    let mut end = 12;
    while question[end] != 0 {
        end += usize::from(question[end]) + 1;
    }
    let mut answer = question[..end + 5].to_vec();
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 198, 51, 100, number]);
    answer
}

/// A list of name servers for the host of a test, in place of the machine's own.
struct HostsList(tempfile::NamedTempFile);

impl HostsList {
    fn new(text: &str) -> Self {
        // For all to read, as such lists are.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let mut builder = tempfile::Builder::new();
        let file = builder.permissions(mode).tempfile().unwrap();
        std::fs::write(&file, text).unwrap();
        let path = CString::new(file.path().as_os_str().as_bytes()).unwrap();
        let (root, list) = (c"/".as_ptr(), c"/etc/resolv.conf".as_ptr());
        let none = std::ptr::null();
        // SAFETY: strings end with a zero; this thread, and those that it makes, see the mounts, and nobody else.
        let results = unsafe {
            [
                libc::unshare(libc::CLONE_NEWNS),
                libc::mount(
                    none,
                    root,
                    none,
                    libc::MS_REC | libc::MS_PRIVATE,
                    none.cast(),
                ),
                libc::mount(path.as_ptr(), list, none, libc::MS_BIND, none.cast()),
            ]
        };
        assert_eq!(results, [0; 3], "{}", std::io::Error::last_os_error());
        Self(file)
    }

    /// Changes it, and waits until that can be seen.
    fn change(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
        std::thread::sleep(Duration::from_millis(1100));
    }
}

/// What a guest learns of a name by dig(1), with more arguments.
fn dig(guest: &Namespace, arguments: &str) -> String {
    guest.run(|| {
        let output = Command::new("dig")
            .args(["@10.107.0.1", "+tries=1", "+time=6", "+nocookie"])
            .args(arguments.split(' '))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
}

/// The number of the server that answers.
fn asked(guest: &Namespace, arguments: &str) -> String {
    let text = dig(guest, &format!("+short {arguments}"));
    text.trim().trim_start_matches("198.51.100.").to_string()
}

fn interfaces() {
    ip("link set lo up");
}

#[test]
fn names_are_found_wherever_the_hosts_resolver_is() {
    let name = "net::name_tests::names_are_found_wherever_the_hosts_resolver_is";
    isolated(name, || {
        let list = HostsList::new("nameserver 127.0.0.1\n");
        interfaces();
        for (address, number) in [("127.0.0.1", 1), ("::1", 2), ("127.0.0.53", 3)] {
            serve(address, number);
        }
        let World { guest, network, .. } = &world(&[]);
        assert_eq!(network.warnings(), [] as [String; 0]);
        let endpoint = network.interface().guest.as_ref().unwrap();
        assert_eq!(endpoint.dns, [endpoint.gateway]);
        serve("192.0.2.2", 4);
        let ways = ["name.test", "+tcp name.test", "long.test"];
        for way in ways {
            assert_eq!(asked(guest, way), "1", "{way}");
        }
        for (server, number) in [("::1", "2"), ("127.0.0.53", "3"), ("192.0.2.2", "4")] {
            list.change(&format!("search example\nnameserver {server}\n"));
            for way in ways {
                assert_eq!(asked(guest, way), number, "{server} {way}");
            }
        }
        // The library's resolver, of a guest that is told so.
        list.change("nameserver ::1\n");
        guest.run(|| {
            let _guests = HostsList::new("nameserver 10.107.0.1\n");
            let output = Command::new("getent")
                .args(["ahostsv4", "name.test"])
                .output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            assert!(text.starts_with("198.51.100.2 "), "{text}");
        });
        // A resolver that goes away, and one that comes.
        list.change("\n");
        let failed = dig(guest, "name.test");
        assert!(failed.contains("SERVFAIL"), "{failed}");
        list.change("nameserver 127.0.0.1\n");
        assert_eq!(asked(guest, "name.test"), "1");
    });
}

#[test]
fn a_guest_that_starts_again_is_answered() {
    let name = "net::name_tests::a_guest_that_starts_again_is_answered";
    isolated(name, || {
        let _list = HostsList::new("nameserver 127.0.0.1\n");
        interfaces();
        serve("127.0.0.1", 1);
        // The kernel has not forgotten what the first sent from this port when the second does the same.
        let question = "-b 10.107.0.2#5000 name.test";
        let world = world(&[]);
        assert_eq!(asked(&world.guest, question), "1");
        drop(world.network);
        let runtime = tempfile::tempdir().unwrap();
        let mut network = set_up(&Net::default(), runtime.path()).unwrap();
        network.serve().unwrap();
        let guest = Namespace::new();
        let near = &network.queues()[0];
        let _far = far_end(&guest, near, "10.107.0.2/30", "10.107.0.1");
        assert_eq!(asked(&guest, question), "1");
    });
}

#[test]
fn servers_that_do_not_answer_are_passed_over() {
    let name = "net::name_tests::servers_that_do_not_answer_are_passed_over";
    isolated(name, || {
        let list = HostsList::new("nameserver 127.0.0.7\nnameserver 127.0.0.8\nnameserver ::1\n");
        interfaces();
        // Nobody is at the first address, and the second is silent.
        let _silent = UdpSocket::bind("127.0.0.8:53").unwrap();
        serve("::1", 2);
        let World { guest, .. } = &world(&[]);
        let begun = Instant::now();
        assert_eq!(asked(guest, "name.test"), "2");
        assert!(begun.elapsed() < seconds(5), "{:?}", begun.elapsed());
        // Who has answered is asked first.
        let begun = Instant::now();
        assert_eq!(asked(guest, "name.test"), "2");
        assert!(
            begun.elapsed() < patience(Duration::from_millis(1400)),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(asked(guest, "+tcp name.test"), "2");
        // Nobody at all: that is told, soon where the host knows, and before the guest gives up where not.
        for (text, most) in [
            ("nameserver 127.0.0.7\n", 1400),
            ("nameserver 127.0.0.8\n", 5000),
        ] {
            list.change(text);
            let begun = Instant::now();
            let text = dig(guest, "name.test");
            assert!(text.contains("SERVFAIL"), "{text}");
            let took = begun.elapsed();
            assert!(took < patience(Duration::from_millis(most)), "{took:?}");
        }
    });
}

#[test]
fn servers_that_were_named_are_asked_instead() {
    let name = "net::name_tests::servers_that_were_named_are_asked_instead";
    isolated(name, || {
        let list = HostsList::new("nameserver 127.0.0.1\n");
        interfaces();
        serve("127.0.0.1", 1);
        serve("::1", 2);
        let mut config = Net::default();
        config.dns = vec!["::1".parse().unwrap()];
        let World { guest, network, .. } = &world_with(config);
        assert_eq!(asked(guest, "name.test"), "2");
        list.change("");
        assert_eq!(asked(guest, "+tcp name.test"), "2");
        assert_eq!(network.warnings(), [] as [String; 0]);
    });
}

#[test]
fn a_host_without_name_servers_says_so() {
    let name = "net::name_tests::a_host_without_name_servers_says_so";
    isolated(name, || {
        let _list = HostsList::new("search example\n");
        let runtime = tempfile::tempdir().unwrap();
        let network = set_up(&Net::default(), runtime.path()).unwrap();
        let warnings = network.warnings().join("\n");
        assert!(warnings.contains("/etc/resolv.conf"), "{warnings}");
        assert!(warnings.contains("`dns`"), "{warnings}");
    });
}

#[test]
fn a_firewall_that_lets_no_questions_in_is_noticed() {
    let name = "net::name_tests::a_firewall_that_lets_no_questions_in_is_noticed";
    isolated(name, || {
        let list = HostsList::new("nameserver 127.0.0.1\n");
        let runtime = tempfile::tempdir().unwrap();
        let guests = || {
            let network = set_up(&Net::default(), runtime.path()).unwrap();
            let dns = network.interface().guest.as_ref().unwrap().dns.clone();
            (network.warnings().join("\n"), dns)
        };
        let nft = |rules: &str| {
            let status = Command::new("nft").arg(rules).status().unwrap();
            assert!(status.success(), "{rules}");
        };
        let chain =
            "add table inet fw; add chain inet fw input { type filter hook input priority 0;";
        let gateway = [Ipv4Addr::new(10, 107, 0, 1)];
        // By a policy, by a last rule, by one that is about a port; and as others do, for what they have begun.
        for rules in [
            "policy drop; }; add rule inet fw input ct state established,related accept",
            "}; add rule inet fw input iifname lo accept; add rule inet fw input reject",
            "}; add rule inet fw input udp dport 1024-65535 drop",
        ] {
            nft(&format!("{chain} {rules}"));
            let (warnings, dns) = guests();
            assert!(
                warnings.contains("`sudo ufw allow in on kvmlet0`"),
                "{rules}: {warnings}"
            );
            assert!(warnings.contains("it can look up none"), "{warnings}");
            assert_eq!(dns, gateway);
            // Those who could be asked without this host are.
            list.change("nameserver 127.0.0.1\nnameserver 192.0.2.9\nnameserver ::1\n");
            let (warnings, dns) = guests();
            assert!(warnings.contains("ask 192.0.2.9, which"), "{warnings}");
            assert_eq!(dns, [Ipv4Addr::new(192, 0, 2, 9)]);
            // What is advised helps.
            nft("insert rule inet fw input iifname kvmlet0 accept");
            assert_eq!(guests(), (String::new(), gateway.to_vec()), "{rules}");
            nft("delete table inet fw");
            list.change("nameserver 127.0.0.1\n");
        }
    });
}

#[test]
fn only_its_guest_is_answered() {
    let name = "net::name_tests::only_its_guest_is_answered";
    isolated(name, || {
        let _list = HostsList::new("nameserver 127.0.0.1\n");
        interfaces();
        serve("127.0.0.1", 1);
        // The host has other uses for the port that stands for 53.
        let _taken = (
            UdpSocket::bind("0.0.0.0:15353").unwrap(),
            TcpListener::bind("0.0.0.0:15353").unwrap(),
        );
        let world = world(&[]);
        let ports = world
            .network
            .made
            .as_ref()
            .unwrap()
            .lease
            .record()
            .dns
            .unwrap();
        let ask = || {
            let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04name\x04test\x00\x00\x01\x00\x01";
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let patience = patience(Duration::from_millis(300));
            socket.set_read_timeout(Some(patience)).unwrap();
            let mut answered = [53, ports.udp].into_iter().map(|port| {
                let _ = socket.send_to(question, ("10.107.0.1", port));
                socket.recv(&mut [0; 512]).is_ok()
            });
            let by_udp = answered.any(|answered| answered);
            let address = SocketAddr::from(([10, 107, 0, 1], ports.tcp));
            let stream = TcpStream::connect_timeout(&address, patience);
            let by_tcp = stream.and_then(|mut stream| {
                stream.set_read_timeout(Some(patience))?;
                let length = (question.len() as u16).to_be_bytes();
                stream.write_all(&[&length[..], question].concat())?;
                stream.read_exact(&mut [0; 12])
            });
            (by_udp, by_tcp.is_ok())
        };
        assert_eq!(world.guest.run(ask), (true, true));
        assert_eq!(ask(), (false, false), "the host");
        world
            .outside
            .run(|| ip("route add 10.107.0.0/16 via 192.0.2.2"));
        assert_eq!(world.outside.run(ask), (false, false), "somebody elsewhere");
    });
}

#[test]
fn a_guest_that_asks_without_end_holds_little() {
    let name = "net::name_tests::a_guest_that_asks_without_end_holds_little";
    isolated(name, || {
        let list = HostsList::new("nameserver 127.0.0.8\n");
        interfaces();
        let _silent = UdpSocket::bind("127.0.0.8:53").unwrap();
        serve("127.0.0.1", 1);
        let World { guest, .. } = &world(&[]);
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        guest.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let mut question = [0u8; 40];
            for n in 0..2000u16 {
                question[..2].copy_from_slice(&n.to_be_bytes());
                let _ = socket.send_to(&question, "10.107.0.1:53");
                // Neither a question nor short enough.
                let _ = socket.send_to(&[0xff; 40], "10.107.0.1:53");
                let _ = socket.send_to(&[0; 1400][..n as usize % 12], "10.107.0.1:53");
            }
        });
        std::thread::sleep(Duration::from_millis(200));
        assert!(descriptors() <= before + 64, "{before} {}", descriptors());
        list.change("nameserver 127.0.0.1\n");
        assert_eq!(asked(guest, "name.test"), "1");
    });
}
