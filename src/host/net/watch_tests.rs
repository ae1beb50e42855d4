//! Rules that somebody takes away, and who puts them back.

use super::isolation::isolated;
use super::tests::{run, set_up};
use super::*;
use crate::patience::{eventually, seconds};
use std::time::Instant;

/// What gives the watch its turns has others to serve.
#[test]
fn a_lock_that_others_have_holds_up_no_turn() {
    isolated(
        "net::watch_tests::a_lock_that_others_have_holds_up_no_turn",
        || {
            let place = tempfile::tempdir().unwrap();
            let mut network = set_up(&Net::default(), place.path()).unwrap();
            let mut watch = network.watch().unwrap();
            watch.turn();
            let up = || link::Socket::open().unwrap().is_up("kvmlet0");
            assert!(up());
            let runtime = RuntimeDirectory::at(place.path()).unwrap();
            let lock = lease::lock(&runtime).unwrap();
            run("nft", &["flush ruleset"]);
            let since = Instant::now();
            for _ in 0..5 {
                watch.turn();
            }
            assert!(since.elapsed() < seconds(5), "{:?}", since.elapsed());
            assert!(!up());
            drop(lock);
            eventually("it is up again", || {
                watch.turn();
                up()
            });
            drop(watch);
        },
    );
}

/// One supervisor puts the rules of all back, and all of their interfaces were stopped.
#[test]
fn whoever_has_put_rules_back_each_interface_goes_on() {
    isolated(
        "net::watch_tests::whoever_has_put_rules_back_each_interface_goes_on",
        || {
            let place = tempfile::tempdir().unwrap();
            let mut networks = [(); 2].map(|()| set_up(&Net::default(), place.path()).unwrap());
            let mut watches: Vec<_> = networks.iter_mut().map(|it| it.watch().unwrap()).collect();
            watches.iter_mut().for_each(Watch::turn);
            let up = |number: usize| {
                let link = link::Socket::open().unwrap();
                link.is_up(&format!("kvmlet{number}"))
            };
            assert!(up(0) && up(1));
            let runtime = RuntimeDirectory::at(place.path()).unwrap();
            let lock = lease::lock(&runtime).unwrap();
            run("nft", &["flush ruleset"]);
            watches.iter_mut().for_each(Watch::turn);
            assert!(!up(0) && !up(1));
            drop(lock);
            for (number, watch) in watches.iter_mut().enumerate() {
                eventually("it is up again", || {
                    watch.turn();
                    up(number)
                });
            }
            drop(watches);
        },
    );
}
