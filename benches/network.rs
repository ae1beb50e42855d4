//! TCP between a guest and a program of this host, through a tap and through passt: `cargo bench --bench network [-- --rounds N --mib N]`.
//!
//! A bare-metal guest with a TCP stack of its own (smoltcp: 1514 bytes a frame, no offloads) sends, or takes, to a program that
//! reads or writes 64 KiB at a time. Ways take turns, in an order of their own: at the guest's address, through the tap that
//! kvmlet has made; through a port of this host's loopback that is published, which kvmlet carries to that tap; and through such
//! a port that passt carries. The guest's driver waits for each frame that it sends until that is taken, so that what it sends tells
//! how long a frame takes, and no more. Clocks run from the first byte to the last. All is in a network namespace of its own, for root.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed benchmark

use kvmlet_harness as harness;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What is read and written at a time.
const PORTION: usize = 64 << 10;
/// The argument by which this program has a network of its own.
const INSIDE: &str = "--inside";
/// passt goes the way of a default route, and there must be one.
const OWN_HOST: &str = r#"
    mount -t tmpfs tmpfs /run; echo nameserver 127.0.0.1 >/run/resolv.conf
    mount --bind /run/resolv.conf /etc/resolv.conf
    ip link set lo up; ip tuntap add dev uplink mode tap; ip addr add 192.0.2.2/24 dev uplink
    ip link set uplink up; ip route add default via 192.0.2.1
    exec "$0" "$@"
"#;

/// A way to the guest: its name, what `--net` is given, and the address with a port of its own for each of the guest's.
const WAYS: [(&str, &str, [&str; 2]); 3] = [
    (
        "tap, the guest's address",
        "subnet=10.9.8.0/30",
        ["10.9.8.2:81", "10.9.8.2:82"],
    ),
    (
        "tap, a published port",
        "subnet=10.9.8.0/30",
        ["127.0.0.1:8081", "127.0.0.1:8082"],
    ),
    (
        "passt, a published port",
        "passt",
        ["127.0.0.1:8081", "127.0.0.1:8082"],
    ),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == INSIDE) {
        if !rustix::process::geteuid().is_root() {
            return println!("SKIPPED: only root has a network namespace of its own");
        }
        if let Err(reason) = harness::kvm() {
            return println!("SKIPPED: {reason}");
        }
        // What guests are is built where there is a network.
        harness::program("net_services");
        let mut inside = Command::new("unshare");
        inside.args([
            "--net",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            OWN_HOST,
        ]);
        inside
            .arg(std::env::current_exe().unwrap())
            .arg(INSIDE)
            .args(words);
        assert!(inside.status().unwrap().success());
        return;
    }
    let (rounds, mib) = (
        harness::argument("--rounds", 7),
        harness::argument("--mib", 64),
    );
    println!(
        "-- {rounds} rounds of {mib} MiB, 64 KiB at a time; MB/s, medians, lowest and highest"
    );
    println!(
        "{:<28} {:>24} {:>24}",
        "", "the guest sends", "the guest takes"
    );
    let mut speeds = WAYS.map(|_| [Vec::new(), Vec::new()]);
    for round in 0..=rounds {
        for turn in 0..WAYS.len() {
            let place = (round + turn) % WAYS.len();
            let found = through(WAYS[place].1, WAYS[place].2, mib);
            // The first is for caches.
            for (all, speed) in speeds[place].iter_mut().zip(found) {
                all.extend((round > 0).then_some(speed));
            }
        }
    }
    for ((name, ..), [sends, takes]) in WAYS.iter().zip(&mut speeds) {
        println!("{name:<28} {:>24} {:>24}", told(sends), told(takes));
    }
}

fn told(speeds: &mut [f64]) -> String {
    speeds.sort_by(f64::total_cmp);
    let (lowest, highest) = (speeds[0], speeds[speeds.len() - 1]);
    format!("{:.1} ({lowest:.1}-{highest:.1})", speeds[speeds.len() / 2])
}

/// Boots the guest, and returns what it has sent and taken, in MB/s.
fn through(net: &str, [sends, takes]: [&str; 2], mib: usize) -> [f64; 2] {
    let mut guest = Command::new(env!("CARGO_BIN_EXE_kvmlet"))
        .args([
            "boot",
            "--cmdline",
            &format!("mmio=0xd0002000 mib={mib}"),
            "--net",
            net,
        ])
        .args([
            "-p",
            "127.0.0.1:8081:81",
            "-p",
            "127.0.0.1:8082:82",
            "-p",
            "127.0.0.1:8080:80",
        ])
        .arg("--kernel")
        .arg(harness::program("net_services"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(guest.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim_end() != "serving" {
        line.clear();
        assert!(
            said.read_line(&mut line).unwrap() > 0,
            "the guest has ended"
        );
    }
    let speeds = [take(sends, mib << 20), send(takes, mib << 20)];
    connect("127.0.0.1:8080").write_all(b"quit").unwrap();
    let status = guest.wait().unwrap();
    assert!(status.success(), "{status}");
    speeds
}

/// A guest that has just said that it serves has its first turn to listen yet.
fn connect(address: &str) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn take(address: &str, bytes: usize) -> f64 {
    let mut stream = connect(address);
    let mut buffer = vec![0; PORTION];
    let mut taken = stream.read(&mut buffer).unwrap();
    let begun = Instant::now();
    while taken < bytes {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{taken} bytes of {bytes}");
        taken += count;
    }
    bytes as f64 / begun.elapsed().as_secs_f64() / 1e6
}

fn send(address: &str, bytes: usize) -> f64 {
    let mut stream = connect(address);
    let buffer = vec![0; PORTION];
    let begun = Instant::now();
    for _ in 0..bytes / PORTION {
        stream.write_all(&buffer).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    // The guest closes when it has all.
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    bytes as f64 / begun.elapsed().as_secs_f64() / 1e6
}
