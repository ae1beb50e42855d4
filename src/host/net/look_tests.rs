//! What a start asks the kernel for, and what it sees by that.

use super::isolation::isolated;
use super::link::{self, Socket};
use super::lookup::Lookup;
use super::tests::{opened, run, set_up};
use crate::config::Net;
use std::path::Path;

fn ip(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    run("ip", &words);
}

fn tap(name: &str, address: &str) {
    ip(&format!("tuntap add {name} mode tap"));
    ip(&format!("addr add {address} dev {name}"));
    ip(&format!("link set dev {name} up"));
}

#[test]
fn the_kernel_tells_of_one_network_and_one_interface() {
    isolated(
        "net::look_tests::the_kernel_tells_of_one_network_and_one_interface",
        || {
            let mut lookup = Lookup::open().unwrap();
            let mut free = |subnet: &str| lookup.is_free(subnet.parse().unwrap());
            assert!(free("10.107.0.0/30").unwrap(), "there is no route at all");
            tap("wan", "192.0.2.2/24");
            ip("route add default via 192.0.2.1");
            ip("addr add 10.107.0.5/30 dev wan");
            // In the middle, at an end, around it, and of those that lead nowhere.
            ip("route add 10.107.0.10/32 dev wan");
            ip("route add 10.107.0.15/32 dev wan");
            ip("route add 10.107.1.0/24 dev wan");
            ip("route add unreachable 10.107.2.0/24");
            ip("route add blackhole 10.107.3.0/30");
            let third = |third: u8, last: u8| format!("10.107.{third}.{last}/30");
            for (subnet, expected) in [
                (third(0, 0), true),
                (third(0, 4), false),
                (third(0, 8), false),
                (third(0, 12), false),
                (third(0, 16), true),
                (third(1, 0), false),
                (third(2, 0), false),
                (third(3, 0), false),
                (third(3, 4), true),
            ] {
                assert_eq!(free(&subnet).unwrap_or(false), expected, "{subnet}");
            }
            assert!(lookup.main_table_decides().unwrap());
            ip("rule add to 10.107.0.0/16 lookup 99");
            assert!(!lookup.main_table_decides().unwrap());
            let index = Socket::open().unwrap().index("wan").unwrap();
            assert_eq!(lookup.forwards(index).unwrap(), Some(false));
            link::set_forwarding("wan", true).unwrap();
            assert_eq!(lookup.forwards(index).unwrap(), Some(true));
            assert_eq!(lookup.forwards(index + 1).unwrap(), None);
            let defaults = link::default_routes().unwrap();
            assert_eq!(defaults.len(), 1);
            assert_eq!(defaults[0].interface, "wan");
        },
    );
}

#[test]
fn interfaces_have_numbers_that_nobody_looks_for() {
    isolated(
        "net::look_tests::interfaces_have_numbers_that_nobody_looks_for",
        || {
            let runtime = tempfile::tempdir().unwrap();
            let start = |net: &str| set_up(&net.parse().unwrap(), runtime.path()).unwrap();
            let first = start("subnet=10.107.0.0/29");
            assert_eq!(first.tap(), Some("kvmlet0"));
            // The first two have networks of its.
            assert_eq!(start("egress=none").tap(), Some("kvmlet2"));
            // One that is somebody else's is left alone.
            ip("tuntap add kvmlet2 mode tap");
            let other = start("egress=none");
            assert_eq!(
                (other.tap(), &*address(&other)),
                (Some("kvmlet1"), "10.107.0.10")
            );
        },
    );
}

fn address(network: &super::Network) -> String {
    let guest = network.interface().guest.as_ref().unwrap();
    guest.address.to_string()
}

#[test]
fn what_others_have_is_seen_without_a_look_at_all() {
    isolated(
        "net::look_tests::what_others_have_is_seen_without_a_look_at_all",
        || {
            let runtime = tempfile::tempdir().unwrap();
            let start = || set_up(&Net::default(), runtime.path()).unwrap();
            tap("idle", "192.0.2.2/24");
            let first = start();
            assert_eq!(address(&first), "10.107.0.2");
            // Some that have come since, and one that forwards since.
            tap("late", "192.0.3.2/24");
            ip("route add 10.107.0.5/32 dev late");
            link::set_forwarding("late", true).unwrap();
            let settings = Path::new("/proc/sys/net/ipv4/conf/kvmlet0");
            let mut second = None;
            let looked_at = opened(settings, "forwarding", || second = Some(start()));
            assert_eq!(looked_at, 0, "what another guest's interface does is known");
            assert_eq!(address(&second.unwrap()), "10.107.0.10");
            let routed = |name: &str| {
                let table = run("nft", &["list", "ruleset"]);
                let set = table.split("set routed").nth(1).unwrap();
                set.split('}').next().unwrap().contains(name)
            };
            assert!(routed("\"late\"") && !routed("\"idle\""));
            link::set_forwarding("idle", true).unwrap();
            let _third = start();
            assert!(routed("\"idle\""));
            // A range that others have meanwhile is left to them.
            ip("route add 10.107.0.0/16 dev late");
            assert_eq!(address(&start()), "172.30.0.2");
        },
    );
}
