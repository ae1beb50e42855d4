//! Guests' networks beside what else changes this host's: other owners, firewalls, docker.

use super::isolation::isolated;
use super::tests::{run, set_up};
use super::traffic_tests::{connect, ip, seen_by, world, world_with};
use super::*;
use crate::patience::{eventually, seconds};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

fn net_with(port: &str) -> Net {
    super::tests::net(&[port])
}

/// Does a list of rules have all words that another has, as often? Tables and elements have no order, and interfaces
/// that forward may have come meanwhile.
fn has_all(rules: &str, of: &str) -> bool {
    let words = |text: &str| {
        let mut counts = std::collections::BTreeMap::new();
        for word in text.split([' ', ',', '\t', '\n']) {
            *counts.entry(word.to_owned()).or_insert(0) += 1;
        }
        counts.remove("");
        counts
    };
    let have = words(rules);
    let mut wanted = words(of).into_iter();
    wanted.all(|(word, count)| have.get(&word).is_some_and(|have| *have >= count))
}

fn rules() -> String {
    run("nft", &["list", "ruleset"])
}

#[test]
fn rules_read_back_as_they_are_meant() {
    isolated(
        "net::neighbour_tests::rules_read_back_as_they_are_meant",
        || {
            let runtime = tempfile::tempdir().unwrap();
            let config: Net = "egress=internet".parse().unwrap();
            let _networks = [
                set_up(&config, runtime.path()).unwrap(),
                set_up(&net_with("8080:80"), runtime.path()).unwrap(),
                set_up(&net_with("8081:80"), runtime.path()).unwrap(),
            ];
            let listed = rules();
            for line in [
                "type nat hook prerouting priority dstnat; policy accept;",
                "iifname @routed fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @published_at",
                "iifname @routed fib daddr type local dnat ip to meta l4proto . th dport map @published",
                "ip saddr @addresses masquerade",
                "iif @taps iif . ip saddr != @guests drop",
                "oif @taps ct state established,related accept",
                "oif @taps ct status dnat meta l4proto . ct original proto-dst @open accept",
                "oif @taps ct status dnat ct original ip daddr . meta l4proto . ct original proto-dst @open_at accept",
                "oif @taps ct status dnat drop",
                "oif @taps drop",
                "iif @closed drop",
                "iif @guarded ip daddr @private drop",
                "iifname @borrowed oifname != \"kvmlet*\" drop",
                "iif @taps icmp type echo-request accept",
                "iif . meta l4proto . th dport @resolvers accept",
                "\"kvmlet0\" . 10.107.0.2",
                "192.168.0.0/16",
            ] {
                assert!(listed.contains(line), "{line}\n{listed}");
            }
        },
    );
}

#[test]
fn rules_that_are_taken_away_come_back() {
    isolated(
        "net::neighbour_tests::rules_that_are_taken_away_come_back",
        || {
            let world = world(&["8080:80"]);
            let runtime = tempfile::tempdir().unwrap();
            // A guest of another owner, whose rules go as well.
            let mut other = set_up(&Net::default(), runtime.path()).unwrap();
            other.serve().unwrap();
            let _host = TcpListener::bind("0.0.0.0:9999").unwrap();
            let whole = rules();
            for damage in [
                &["flush", "ruleset"][..],
                &["flush", "chain", "ip", "TABLE", "forward"],
                &[
                    "delete",
                    "element",
                    "ip",
                    "TABLE",
                    "taps",
                    "{ \"kvmlet0\" }",
                ],
                &["flush", "set", "ip", "TABLE", "guests"],
                &["flush", "set", "ip", "TABLE", "private"],
                &["delete", "table", "ip6", "TABLE"],
            ] {
                let name = whole
                    .lines()
                    .find_map(|line| line.strip_prefix("table ip "));
                let name = name.unwrap().trim_end_matches(" {");
                let damage: Vec<&str> = damage
                    .iter()
                    .map(|word| if *word == "TABLE" { name } else { word })
                    .collect();
                run("nft", &damage);
                eventually(&format!("back after {damage:?}"), || {
                    has_all(&rules(), &whole)
                });
                eventually("the interfaces are up", || {
                    let socket = link::Socket::open().unwrap();
                    socket.is_up("kvmlet0") && socket.is_up("kvmlet1")
                });
            }
            world
                .outside
                .run(|| assert_eq!(seen_by("192.0.2.2:8080"), "192.0.2.1"));
            world.guest.run(|| {
                assert_eq!(seen_by("192.0.2.1:80"), "192.0.2.2");
                assert!(connect("192.0.2.2:9999").is_err());
            });
        },
    );
}

#[test]
fn owners_leave_each_other_alone() {
    isolated(
        "net::neighbour_tests::owners_leave_each_other_alone",
        || {
            let world = world(&["8080:80"]);
            let runtime = tempfile::tempdir().unwrap();
            let other = set_up(&Net::default(), runtime.path()).unwrap();
            assert_eq!(rules().matches("table ip kvmlet-").count(), 2);
            // Neither do their guests reach each other.
            let address = other.interface().guest.as_ref().unwrap().address;
            assert_ne!(address, Ipv4Addr::new(10, 107, 0, 2));
            drop(other);
            assert_eq!(rules().matches("table ip kvmlet-").count(), 1);
            assert!(link::forwards("uplink"), "the first guest needs it");
            world
                .outside
                .run(|| assert_eq!(seen_by("192.0.2.2:8080"), "192.0.2.1"));
            // And the other way round: the first goes, and what it has borrowed stays for the second.
            let second = set_up(&Net::default(), runtime.path()).unwrap();
            drop(world.network);
            assert!(link::forwards("uplink"));
            drop(second);
            assert!(!link::forwards("uplink"), "the last gives it back");
            assert_eq!(rules(), "");
        },
    );
}

#[test]
fn there_is_no_ipv6_between_host_and_guest() {
    isolated(
        "net::neighbour_tests::there_is_no_ipv6_between_host_and_guest",
        || {
            let world = world(&[]);
            // Somebody switches it on again, as `sysctl --system` may.
            for (setting, value) in [("accept_dad", "0"), ("disable_ipv6", "0")] {
                let file = format!("/proc/sys/net/ipv6/conf/kvmlet0/{setting}");
                std::fs::write(file, value).unwrap();
            }
            let host = || run("ip", &["-6", "-o", "addr", "show", "dev", "kvmlet0"]);
            eventually("the host has an address", || host().contains("fe80::"));
            let host = host();
            let host = host
                .split([' ', '/'])
                .find(|word| word.starts_with("fe80::"));
            let guest = || run("ip", &["-6", "-o", "addr", "show", "dev", "eth0"]);
            world.guest.run(|| {
                eventually("the guest has one", || {
                    let guest = guest();
                    guest.contains("fe80::") && !guest.contains("tentative")
                })
            });
            let _services = TcpListener::bind("[::]:9998").unwrap();
            let index = world
                .guest
                .run(|| link::Socket::open().unwrap().index("eth0").unwrap());
            let address = format!("[{}%{index}]:9998", host.unwrap());
            world
                .guest
                .run(|| assert!(connect(&address).is_err(), "{address}"));
        },
    );
}

#[test]
fn what_was_for_a_guest_that_has_ended_is_not_for_the_next() {
    isolated(
        "net::neighbour_tests::what_was_for_a_guest_that_has_ended_is_not_for_the_next",
        || {
            let world = world(&["5353:53/udp"]);
            let client = world
                .outside
                .run(|| UdpSocket::bind("192.0.2.1:4000").unwrap());
            client.set_read_timeout(Some(seconds(5))).unwrap();
            let mut datagram = [0; 100];
            client.send_to(b"who am I?", "192.0.2.2:5353").unwrap();
            let (bytes, _) = client.recv_from(&mut datagram).unwrap();
            assert_eq!(&datagram[..bytes], b"192.0.2.1", "led there by a rule");
            // The next guest has the same address, and publishes nothing.
            let runtime = tempfile::tempdir().unwrap();
            let next = "subnet=10.107.0.0/30".parse().unwrap();
            drop(world.network);
            let next = set_up(&next, runtime.path()).unwrap();
            client.send_to(b"who am I now?", "192.0.2.2:5353").unwrap();
            std::thread::sleep(Duration::from_millis(300));
            // Were it let pass, the host would ask for the guest's hardware address.
            let mut frame = [0; 2000];
            let arrived = rustix::io::read(next.queues()[0].as_fd(), &mut frame);
            assert!(arrived.is_err(), "{arrived:?} {:?}", &frame[..80]);
        },
    );
}

#[test]
fn forwarding_that_others_switch_on_is_theirs() {
    isolated(
        "net::neighbour_tests::forwarding_that_others_switch_on_is_theirs",
        || {
            let world = world(&[]);
            // As docker does, with a network of its own.
            let borrowed = || rules().contains("elements = { \"uplink\" }");
            assert!(borrowed(), "{}", rules());
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            eventually("the uplink is left to others", || !borrowed());
            drop(world.network);
            assert!(link::forwards("uplink"), "docker's packets still pass");
        },
    );
}

/// Whether a guest reaches the Internet, a private network and a metadata service, and whom it may ask for names.
fn reached(egress: &str) -> ([bool; 3], usize) {
    let world = world_with(format!("egress={egress}").parse().unwrap());
    world.outside.run(|| {
        ip("addr add 192.168.7.1/32 dev lo");
        ip("addr add 169.254.169.254/32 dev lo");
    });
    let reached = world.guest.run(|| {
        let addresses = ["192.0.2.1:80", "192.168.7.1:80", "169.254.169.254:80"];
        addresses.map(|address| connect(address).is_ok())
    });
    (
        reached,
        world.network.interface().guest.as_ref().unwrap().dns.len(),
    )
}

#[test]
fn egress_none_means_that() {
    isolated("net::neighbour_tests::egress_none_means_that", || {
        assert_eq!(reached("none"), ([false; 3], 0));
    });
}

#[test]
fn egress_internet_means_that() {
    isolated("net::neighbour_tests::egress_internet_means_that", || {
        assert_eq!(reached("internet"), ([true, false, false], 1));
    });
}

#[test]
fn egress_all_means_that() {
    isolated("net::neighbour_tests::egress_all_means_that", || {
        assert_eq!(reached("all"), ([true; 3], 1));
    });
}

#[test]
fn a_firewall_that_ends_by_refusing_is_told_of() {
    isolated(
        "net::neighbour_tests::a_firewall_that_ends_by_refusing_is_told_of",
        || {
            let runtime = tempfile::tempdir().unwrap();
            let warned = |script: &str, expected: &[&str]| {
                run("nft", &[script]);
                let network = set_up(&Net::default(), runtime.path()).unwrap();
                let warnings = network.warnings().join("\n");
                for text in expected {
                    assert!(warnings.contains(text), "{script}: {warnings}");
                }
                assert!(
                    !expected.is_empty() || !warnings.contains("firewall"),
                    "{warnings}"
                );
                run("nft", &["delete table inet firewalld"]);
            };
            let chain = "add table inet firewalld; add chain inet firewalld FORWARD \
                         { type filter hook forward priority 10; policy accept; };";
            let rule = "add rule inet firewalld FORWARD";
            warned(
                &format!("{chain} {rule} ct state established accept; {rule} reject"),
                &[
                    "`inet firewalld`",
                    "firewall-cmd --zone=trusted --add-interface=kvmlet0",
                ],
            );
            warned(
                &format!("{chain} {rule} counter drop"),
                &["`inet firewalld`"],
            );
            warned(&format!("{chain} {rule} iifname \"eth7\" reject"), &[]);
            warned(&format!("{chain} {rule} drop; {rule} accept"), &[]);
        },
    );
}
