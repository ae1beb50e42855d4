//! What a network sets up and takes down, in namespaces of the tests' own.

use super::isolation::{companion, isolated, role};
use super::*;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command};

pub(super) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A network that is noted in the directory at a path.
pub(super) fn set_up(config: &Net, runtime: &Path) -> Result<Network, Error> {
    Network::set_up(config, Some(&RuntimeDirectory::at(runtime).unwrap()))
}

fn lease_files(runtime: &Path) -> usize {
    let files = std::fs::read_dir(runtime.join("net"))
        .into_iter()
        .flatten()
        .flatten();
    files
        .filter(|file| file.path().extension().is_some_and(|end| end == "claim"))
        .count()
}

pub(super) fn net(publish: &[&str]) -> Net {
    let mut net = Net::default();
    net.publish = publish.iter().map(|text| text.parse().unwrap()).collect();
    net
}

#[test]
fn what_is_set_up_is_taken_down() {
    isolated("net::tests::what_is_set_up_is_taken_down", || {
        run("ip", &["tuntap", "add", "uplink", "mode", "tap"]);
        run("ip", &["addr", "add", "192.0.2.2/24", "dev", "uplink"]);
        run("ip", &["link", "set", "uplink", "up"]);
        run("ip", &["route", "add", "default", "via", "192.0.2.1"]);
        let runtime = tempfile::tempdir().unwrap();
        let config = net(&["8080:80", "192.0.2.2:53:5353/udp"]);
        let network = set_up(&config, runtime.path()).unwrap();
        assert_eq!(network.warnings(), [] as [String; 0]);
        assert_eq!(network.tap(), Some("kvmlet0"));
        let guest = network.interface().guest.as_ref().unwrap();
        assert_eq!(
            (guest.address, guest.gateway),
            ([10, 107, 0, 2].into(), [10, 107, 0, 1].into())
        );
        assert_eq!(network.interface().mac.octets()[2..], [10, 107, 0, 2]);
        let routes = link::routes().unwrap();
        assert!(
            routes
                .iter()
                .any(|route| route.to_string() == "10.107.0.0/30 on kvmlet0")
        );
        assert!(link::forwards("uplink") && link::forwards("kvmlet0"));
        let rules = run("nft", &["list", "ruleset"]);
        assert!(rules.contains("tcp . 8080 : 10.107.0.2 . 80"), "{rules}");
        assert!(
            rules.contains("192.0.2.2 . udp . 53 : 10.107.0.2 . 5353"),
            "{rules}"
        );
        assert_eq!(lease_files(runtime.path()), 1);
        // A second VM, and the first goes.
        let other = set_up(&net(&["8081:80"]), runtime.path()).unwrap();
        assert_eq!(
            other.interface().guest.as_ref().unwrap().address,
            Ipv4Addr::new(10, 107, 0, 6)
        );
        drop(network);
        let rules = run("nft", &["list", "ruleset"]);
        assert!(
            rules.contains("8081") && !rules.contains("8080") && !rules.contains("10.107.0.2 "),
            "{rules}"
        );
        assert!(!link::exists("kvmlet0") && link::forwards("uplink"));
        drop(other);
        assert_eq!(run("nft", &["list", "tables"]), "");
        assert!(!link::exists("kvmlet1") && !link::forwards("uplink"));
        assert_eq!(lease_files(runtime.path()), 0);
    });
}

#[test]
fn what_is_in_the_way_is_named() {
    isolated("net::tests::what_is_in_the_way_is_named", || {
        let runtime = tempfile::tempdir().unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        let _taken = TcpListener::bind("0.0.0.0:8080").unwrap();
        let refused = |text: &str, publish: &[&str]| {
            let mut config: Net = text.parse().unwrap();
            config.publish = net(publish).publish;
            let error = set_up(&config, runtime.path()).err().unwrap();
            (
                error.to_string(),
                error.help().map_or(String::new(), |help| help.to_string()),
            )
        };
        let (error, help) = refused("", &["8080:80"]);
        let me = std::process::id();
        assert!(
            error.starts_with(&format!("cannot publish 8080:80/tcp: process {me} (")),
            "{error}"
        );
        assert!(help.contains(r#""publish": ["80"]"#), "{help}");
        // What has IPv4 only is in the way of all addresses, and not of one of IPv6.
        let config = net(&["[::1]:8080:80"]);
        drop(set_up(&config, runtime.path()).unwrap());
        let (error, help) = refused("", &["192.0.2.99:81:80"]);
        assert_eq!(
            error,
            "cannot publish 192.0.2.99:81:80/tcp: this host does not have the address 192.0.2.99"
        );
        assert!(help.contains("it has 127.0.0.1, ::1;"), "{help}");
        let neighbour = set_up(&net(&["8081:80"]), runtime.path()).unwrap();
        for again in ["8081:80", "127.0.0.1:8081:80", "[::1]:8081:80"] {
            let (error, _) = refused("", &[again]);
            assert_eq!(
                error,
                format!("cannot publish {again}/tcp: the VM of process {me} has that port")
            );
        }
        drop(neighbour);
        assert_eq!(
            lease_files(runtime.path()),
            0,
            "a failed attempt leaves nothing behind"
        );
        assert!(!link::exists("kvmlet0"));
        run("ip", &["tuntap", "add", "dev", "single", "mode", "tap"]);
        run(
            "ip",
            &[
                "tuntap",
                "add",
                "dev",
                "several",
                "mode",
                "tap",
                "multi_queue",
            ],
        );
        run("ip", &["tuntap", "add", "dev", "tun0", "mode", "tun"]);
        for (text, expected) in [
            ("tap=nowhere", "there is no network interface `nowhere`"),
            ("tap=lo", "the network interface `lo` is not a tap"),
            ("tap=tun0", "the network interface `tun0` is not a tap"),
            (
                "tap=single,queues=4",
                "the tap `single` has one queue, but 4 are asked for",
            ),
        ] {
            let (error, help) = refused(text, &[]);
            assert_eq!(error, expected);
            assert!(help.contains("ip tuntap add"), "{help}");
        }
        let single = set_up(&"tap=single".parse().unwrap(), runtime.path()).unwrap();
        assert!(single.warnings()[0].contains("`single` is down"));
        assert_eq!(
            refused("tap=single", &[]).0,
            "the tap `single` is in use by another process"
        );
        for queues in [1, 3] {
            let config = format!("tap=several,queues={queues}").parse().unwrap();
            let several = set_up(&config, runtime.path()).unwrap();
            assert_eq!(
                (several.queues().len(), several.interface().mtu),
                (queues, Some(1500))
            );
        }
        drop(single);
        assert!(
            link::exists("single") && link::exists("several"),
            "not ours to remove"
        );
        run("ip", &["addr", "add", "10.0.0.1/8", "dev", "single"]);
        run("ip", &["link", "set", "single", "up"]);
        let (error, _) = refused("subnet=10.1.2.0/30", &[]);
        assert!(error.contains("10.0.0.0/8 on single"), "{error}");
    });
}

#[test]
fn a_firewall_that_forwards_nothing_is_told_of() {
    isolated(
        "net::tests::a_firewall_that_forwards_nothing_is_told_of",
        || {
            run(
                "nft",
                &[
                    "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
                ],
            );
            let runtime = tempfile::tempdir().unwrap();
            let network = set_up(&net(&["8080:80"]), runtime.path()).unwrap();
            assert!(
                network.warnings()[0].contains("`ip filter`"),
                "{:?}",
                network.warnings()
            );
            let rules = run("nft", &["list", "ruleset"]);
            assert!(!rules.contains("8080"), "left to the proxy: {rules}");
            drop(network);
            assert_eq!(run("nft", &["list", "tables"]), "table ip filter\n");
        },
    );
}

/// How many files of a directory are opened meanwhile, with names that end so.
pub(super) fn opened(directory: &Path, end: &str, act: impl FnOnce()) -> usize {
    use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
    let watch = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    add_watch(&watch, directory, WatchFlags::OPEN).unwrap();
    act();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
    let mut events = Reader::new(watch, &mut buffer);
    let mut names = std::collections::BTreeSet::new();
    while let Ok(event) = events.next() {
        let name = event.file_name().and_then(|name| name.to_str().ok());
        names.extend(name.filter(|name| name.ends_with(end)).map(str::to_owned));
    }
    names.len()
}

fn opened_leases(runtime: &Path, act: impl FnOnce()) -> usize {
    opened(&runtime.join("net"), ".claim", act)
}

#[test]
fn a_network_comes_and_goes_without_a_look_at_others() {
    isolated(
        "net::tests::a_network_comes_and_goes_without_a_look_at_others",
        || {
            let runtime = tempfile::tempdir().unwrap();
            let runtime = runtime.path();
            let mut networks: Vec<_> = (0..3)
                .map(|_| set_up(&Net::default(), runtime).unwrap())
                .collect();
            let mut last = None;
            let start = || last = Some(set_up(&net(&["8080:80"]), runtime).unwrap());
            assert_eq!(opened_leases(runtime, start), 1, "its own");
            assert_eq!(opened_leases(runtime, || drop(last)), 1);
            // What is free again is the next one's.
            drop(networks.remove(1));
            let next = set_up(&Net::default(), runtime).unwrap();
            let address = next.interface().guest.as_ref().unwrap().address;
            assert_eq!(address, Ipv4Addr::new(10, 107, 0, 6));
        },
    );
}

const CROWD: &str = "net::tests::processes_share_the_range_and_clear_up_after_each_other";

/// Another process with a network, which it tells and then holds.
fn neighbour(runtime: &Path, port: u16) -> ((Child, impl Read), String) {
    let role = format!("{port} {}", runtime.display());
    let mut child = companion(CROWD, &role).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let told = output
        .by_ref()
        .lines()
        .map_while(Result::ok)
        .find_map(|line| {
            let at = line.find("address ")?;
            Some(line[at + 8..].to_string())
        });
    ((child, output), told.unwrap())
}

fn be_a_neighbour(role: &str) {
    let (port, runtime) = role.split_once(' ').unwrap();
    let network = set_up(&net(&[&format!("{port}:80")]), Path::new(runtime)).unwrap();
    println!(
        "address {}",
        network.interface().guest.as_ref().unwrap().address
    );
    // Until it is killed, or the other end is closed.
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn processes_share_the_range_and_clear_up_after_each_other() {
    isolated(CROWD, || {
        if let Some(role) = role() {
            return be_a_neighbour(&role);
        }
        let directory = tempfile::tempdir().unwrap();
        let runtime = directory.path();
        let started: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| scope.spawn(move || neighbour(runtime, 9000 + n)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let (mut children, mut addresses): (Vec<_>, Vec<_>) = started.into_iter().unzip();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 8, "no two have the same: {addresses:?}");
        assert_eq!(lease_files(runtime), 8);
        // All but one are killed, which clears nothing.
        for (child, _) in &mut children[1..] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(lease_files(runtime), 8);
        // A look at theirs is a look at no other.
        let looked_at = opened_leases(runtime, || {
            reap_stale(&RuntimeDirectory::at(runtime).unwrap()).unwrap();
        });
        assert_eq!((looked_at, lease_files(runtime)), (7, 1));
        let rules = run("nft", &["list", "ruleset"]);
        assert!(rules.contains("tcp . 9000"), "{rules}");
        assert!(
            !(9001..9008).any(|port| rules.contains(&port.to_string())),
            "{rules}"
        );
        children[0].0.kill().unwrap();
        children[0].0.wait().unwrap();
        // The next network clears the last, and has its address.
        let network = set_up(&net(&["9000:80"]), runtime).unwrap();
        assert_eq!(
            network.interface().guest.as_ref().unwrap().address,
            Ipv4Addr::new(10, 107, 0, 2)
        );
        drop(network);
        assert_eq!(
            (lease_files(runtime), run("nft", &["list", "tables"])),
            (0, String::new())
        );
    });
}
