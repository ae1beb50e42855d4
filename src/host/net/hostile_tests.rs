//! What others leave behind, hold, or do at the wrong moment.

use super::isolation::{Namespace, isolated};
use super::tests::{net, run, set_up};
use super::traffic_tests::{World, connect, ip, seen_by, world, world_with};
use super::*;
use crate::patience::{eventually, seconds};
use std::fs::File;
use std::net::UdpSocket;
use std::os::{fd::AsFd, unix::fs::MetadataExt};
use std::time::{Duration, Instant};

#[test]
fn the_table_of_a_killed_owner_is_not_about_others() {
    isolated(
        "net::hostile_tests::the_table_of_a_killed_owner_is_not_about_others",
        || {
            let killed = tempfile::tempdir().unwrap();
            let network = set_up(&"egress=none".parse().unwrap(), killed.path()).unwrap();
            let name = network.tap().unwrap().to_owned();
            // As a kill does: the tap goes, and the table stays.
            network.abandon();
            assert!(!link::exists(&name));
            let world = world_with("egress=all".parse().unwrap());
            assert_eq!(world.network.tap(), Some(&*name));
            world
                .guest
                .run(|| assert_eq!(seen_by("192.0.2.1:80"), "192.0.2.2"));
        },
    );
}

#[test]
fn ports_that_a_firewall_drops_are_left_to_the_proxy() {
    isolated(
        "net::hostile_tests::ports_that_a_firewall_drops_are_left_to_the_proxy",
        || {
            let drops = "add table ip filter; add chain ip filter FORWARD \
                         { type filter hook forward priority 0; policy drop; }";
            run("nft", &[drops]);
            let world = world(&["8080:80"]);
            let led = || run("nft", &["list", "ruleset"]).contains("8080");
            // The watch looks once when it starts, and when something is taken away.
            std::thread::sleep(Duration::from_millis(200));
            assert!(!led());
            // As who reloads it does, in one transaction.
            run("nft", &[&format!("flush ruleset; {drops}")]);
            eventually("the table is back", || {
                run("nft", &["list", "ruleset"]).contains("kvmlet-")
            });
            world
                .outside
                .run(|| assert!(connect("192.0.2.2:8080").is_ok()));
        },
    );
}

#[test]
fn without_rules_an_interface_is_down_however_long_a_lock_is_held() {
    isolated(
        "net::hostile_tests::without_rules_an_interface_is_down_however_long_a_lock_is_held",
        || {
            let world = world(&[]);
            let up = || link::Socket::open().unwrap().is_up("kvmlet0");
            let runtime = RuntimeDirectory::at(world.runtime.path()).unwrap();
            // After the watch has looked for the first time.
            std::thread::sleep(Duration::from_millis(200));
            let lock = lease::lock(&runtime).unwrap();
            run("nft", &["flush ruleset"]);
            eventually("the interface is down", || !up());
            std::thread::sleep(Duration::from_millis(300));
            assert!(!up(), "it stays so without rules");
            drop(lock);
            eventually("it is up again", up);
            assert!(run("nft", &["list", "ruleset"]).contains("iif @taps drop"));
            world
                .guest
                .run(|| assert_eq!(seen_by("192.0.2.1:80"), "192.0.2.2"));
        },
    );
}

/// Whether the host lets something to the guest pass within a while: it would ask for its hardware address, at least.
fn is_reached(network: &Network) -> bool {
    std::thread::sleep(Duration::from_millis(300));
    rustix::io::read(network.queues()[0].as_fd(), &mut [0; 2000]).is_ok()
}

/// A socket somewhere outside.
fn outsider(world: &World) -> UdpSocket {
    let socket = world
        .outside
        .run(|| UdpSocket::bind("192.0.2.1:4000").unwrap());
    let patience = Some(seconds(5));
    socket.set_read_timeout(patience).unwrap();
    socket
}

#[test]
fn a_client_of_a_service_that_has_moved_does_not_reach_who_has_its_address() {
    isolated(
        "net::hostile_tests::a_client_of_a_service_that_has_moved_does_not_reach_who_has_its_address",
        || {
            let world = world(&["5353:53/udp"]);
            let client = outsider(&world);
            client.send_to(b"a", "192.0.2.2:5353").unwrap();
            client.recv_from(&mut [0; 100]).unwrap();
            let directory = world.runtime.path().to_owned();
            drop(world.network);
            let tenant = "subnet=10.107.0.0/30".parse().unwrap();
            let tenant = set_up(&tenant, &directory).unwrap();
            let _service = set_up(&net(&["5353:53/udp"]), &directory).unwrap();
            client
                .send_to(b"for the service", "192.0.2.2:5353")
                .unwrap();
            assert!(!is_reached(&tenant));
        },
    );
}

#[test]
fn whom_a_guest_has_talked_to_does_not_reach_the_next() {
    isolated(
        "net::hostile_tests::whom_a_guest_has_talked_to_does_not_reach_the_next",
        || {
            let world = world(&[]);
            let partner = outsider(&world);
            world.guest.run(|| {
                let socket = UdpSocket::bind("0.0.0.0:161").unwrap();
                socket.send_to(b"hello", "192.0.2.1:4000").unwrap();
            });
            let (_, seen) = partner.recv_from(&mut [0; 100]).unwrap();
            drop(world.network);
            let runtime = tempfile::tempdir().unwrap();
            let next = "subnet=10.107.0.0/30,egress=none".parse().unwrap();
            let next = set_up(&next, runtime.path()).unwrap();
            partner.send_to(b"into its port 161", seen).unwrap();
            assert!(!is_reached(&next));
        },
    );
}

#[test]
fn owners_who_start_at_once_have_networks_of_their_own() {
    isolated(
        "net::hostile_tests::owners_who_start_at_once_have_networks_of_their_own",
        || {
            run("ip", &["link", "set", "lo", "up"]);
            let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            for _ in 0..20 {
                let barrier = std::sync::Barrier::new(2);
                let address = |directory: &tempfile::TempDir| {
                    barrier.wait();
                    let network = set_up(&Net::default(), directory.path()).unwrap();
                    let address = network.interface().guest.as_ref().unwrap().address;
                    // Both have theirs before either goes.
                    barrier.wait();
                    address
                };
                let [one, other] = std::thread::scope(|scope| {
                    let threads = directories
                        .each_ref()
                        .map(|directory| scope.spawn(|| address(directory)));
                    threads.map(|thread| thread.join().unwrap())
                });
                assert_ne!(one, other);
            }
        },
    );
}

fn leases(runtime: &std::path::Path) -> Vec<String> {
    let files = std::fs::read_dir(runtime.join("net")).unwrap().flatten();
    let names = files.map(|file| file.file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| !["lock", "roll", leftover::NAME].contains(&&**name))
        .collect();
    names.sort();
    names
}

/// An interface to the outside, in the network namespace of this thread.
fn uplink() {
    for command in [
        "tuntap add uplink mode tap",
        "addr add 192.0.2.2/24 dev uplink",
        "link set uplink up",
        "route add default via 192.0.2.1",
    ] {
        ip(command);
    }
}

#[test]
fn who_makes_no_network_waits_for_nobody_who_does() {
    isolated(
        "net::hostile_tests::who_makes_no_network_waits_for_nobody_who_does",
        || {
            let directory = tempfile::tempdir().unwrap();
            let runtime = RuntimeDirectory::at(directory.path()).unwrap();
            set_up(&net(&["8080:80"]), directory.path())
                .unwrap()
                .abandon();
            let noted = leases(directory.path());
            let lock = lease::lock(&runtime).unwrap();
            let since = Instant::now();
            reap_stale(&runtime).unwrap();
            assert!(
                since.elapsed() < seconds(15),
                "who waits gives up after 30 s"
            );
            assert_eq!(leases(directory.path()), noted);
            drop(lock);
            reap_stale(&runtime).unwrap();
            assert!(leases(directory.path()).is_empty());
        },
    );
}

#[test]
fn what_was_killed_in_another_namespace_stays_noted() {
    isolated(
        "net::hostile_tests::what_was_killed_in_another_namespace_stays_noted",
        || {
            let directory = tempfile::tempdir().unwrap();
            let runtime = RuntimeDirectory::at(directory.path()).unwrap();
            let rules = || run("nft", &["list", "ruleset"]);
            // As a kill does.
            let kill = || {
                set_up(&net(&["8080:80"]), directory.path())
                    .unwrap()
                    .abandon();
                assert!(link::forwards("uplink") && rules().contains("8080"));
            };
            let elsewhere = Namespace::new();
            elsewhere.run(|| {
                uplink();
                kill();
            });
            let noted = leases(directory.path());
            assert_eq!(noted.len(), 2, "{noted:?}");
            reap_stale(&runtime).unwrap();
            let looked = directory.path().join("net").join(leftover::NAME);
            let first = File::open(&looked).unwrap();
            reap_stale(&runtime).unwrap();
            assert_eq!(first.metadata().unwrap().nlink(), 1, "it is made anew");
            // Who has the same network here does not overwrite it.
            let subnet = "subnet=10.107.0.0/30".parse().unwrap();
            let here = set_up(&subnet, directory.path()).unwrap();
            assert_eq!(leases(directory.path()).len(), 3);
            drop(here);
            assert_eq!(leases(directory.path()), noted);
            elsewhere.run(|| {
                reap_stale(&runtime).unwrap();
                assert!(!link::forwards("uplink"));
                assert_eq!(rules(), "");
            });
            let nothing: [String; 0] = [];
            assert_eq!(leases(directory.path()), nothing);
            // What went with its namespace needs no note.
            elsewhere.run(kill);
            drop(elsewhere);
            if namespace::gone(&[1]).is_empty() {
                return println!(
                    "SKIPPED: there are processes here that not even root may look at"
                );
            }
            eventually("it is forgotten", || {
                // As when a minute has passed.
                let _ = std::fs::remove_file(&looked);
                reap_stale(&runtime).unwrap();
                leases(directory.path()).is_empty()
            });
        },
    );
}

#[test]
fn who_lacks_the_rights_leaves_what_was_killed_noted() {
    isolated(
        "net::hostile_tests::who_lacks_the_rights_leaves_what_was_killed_noted",
        || {
            let directory = tempfile::tempdir().unwrap();
            let runtime = RuntimeDirectory::at(directory.path()).unwrap();
            set_up(&net(&["8080:80"]), directory.path())
                .unwrap()
                .abandon();
            let noted = leases(directory.path());
            std::thread::scope(|scope| {
                let weak = || {
                    let none = rustix::thread::CapabilitySet::empty();
                    let mut sets = rustix::thread::capabilities(None).unwrap();
                    sets.effective = none;
                    rustix::thread::set_capabilities(None, sets).unwrap();
                    reap_stale(&runtime).unwrap();
                };
                scope.spawn(weak).join().unwrap();
            });
            assert_eq!(leases(directory.path()), noted);
            reap_stale(&runtime).unwrap();
            assert_eq!(run("nft", &["list", "ruleset"]), "");
            assert_eq!(leases(directory.path()).len(), 0);
        },
    );
}

#[test]
fn ports_that_a_firewall_drops_later_are_left_to_the_proxy() {
    isolated(
        "net::hostile_tests::ports_that_a_firewall_drops_later_are_left_to_the_proxy",
        || {
            let world = world(&["8080:80"]);
            let led = || run("nft", &["list", "ruleset"]).contains("8080");
            let seen = || world.outside.run(|| seen_by("192.0.2.2:8080"));
            assert_eq!(seen(), "192.0.2.1", "by a rule");
            // As docker does when it starts: first the chain, then its policy and rules.
            run("nft", &["add table ip filter"]);
            let chain = "chain ip filter FORWARD { type filter hook forward priority 0; policy";
            run("nft", &[&format!("add {chain} accept; }}")]);
            std::thread::sleep(Duration::from_millis(100));
            run(
                "nft",
                &[&format!(
                    "{} drop; }}",
                    chain.replacen("chain", "add chain", 1)
                )],
            );
            eventually("clients are left to the proxy", || !led());
            assert_eq!(seen(), "10.107.0.1", "by the proxy");
            // A firewall that ends otherwise; and it goes again.
            run("nft", &["flush ruleset; add table inet other"]);
            eventually("they are led there again", led);
            assert_eq!(seen(), "192.0.2.1");
        },
    );
}

#[test]
fn an_older_firewall_that_comes_later_is_seen() {
    isolated(
        "net::hostile_tests::an_older_firewall_that_comes_later_is_seen",
        || {
            let forward = |policy| {
                let mut command = std::process::Command::new("iptables-legacy");
                command.args(["-w", "-P", "FORWARD", policy]);
                command.output().is_ok_and(|output| output.status.success())
            };
            let world = world(&["8080:80"]);
            if !forward("DROP") {
                return println!("SKIPPED: this host has no iptables-legacy");
            }
            let led = || run("nft", &["list", "ruleset"]).contains("8080");
            assert!(led());
            // Nobody tells of that, but who starts a firewall switches on forwarding.
            ip("tuntap add docker0 mode tap");
            std::fs::write("/proc/sys/net/ipv4/conf/docker0/forwarding", "1").unwrap();
            eventually("clients are left to the proxy", || !led());
            let seen = world.outside.run(|| seen_by("192.0.2.2:8080"));
            assert_eq!(seen, "10.107.0.1");
            // Now that there is a table it is looked at every two seconds.
            let since = std::time::Instant::now();
            forward("ACCEPT");
            eventually("they are led there again", led);
            forward("DROP");
            eventually("they are left to the proxy again", || !led());
            assert!(since.elapsed() < seconds(12), "{:?}", since.elapsed());
        },
    );
}
