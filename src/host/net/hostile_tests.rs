//! What others leave behind, hold, or do at the wrong moment.

use super::isolation::isolated;
use super::tests::{run, set_up};
use super::traffic_tests::{connect, seen_by, world, world_with};
use super::*;
use std::time::{Duration, Instant};

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_table_of_a_killed_owner_is_not_about_others() {
    isolated(
        "host::net::hostile_tests::the_table_of_a_killed_owner_is_not_about_others",
        || {
            let killed = tempfile::tempdir().unwrap();
            let network = set_up(&"egress=none".parse().unwrap(), killed.path()).unwrap();
            let name = network.tap().to_owned();
            // As a kill does: the tap goes, and the table stays.
            network.abandon();
            assert!(!link::exists(&name));
            let world = world_with("egress=all".parse().unwrap());
            assert_eq!(world.network.tap(), name);
            world
                .guest
                .run(|| assert_eq!(seen_by("192.0.2.1:80"), "192.0.2.2"));
        },
    );
}

#[test]
fn ports_that_a_firewall_drops_are_left_to_the_proxy() {
    isolated(
        "host::net::hostile_tests::ports_that_a_firewall_drops_are_left_to_the_proxy",
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
        "host::net::hostile_tests::without_rules_an_interface_is_down_however_long_a_lock_is_held",
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
