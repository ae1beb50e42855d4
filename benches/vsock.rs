//! Bytes through a virtio socket device: `cargo bench --bench vsock [-- --rounds N --mib N]`.
//!
//! A bare-metal guest sends, or receives, in packets of 64 KiB; a program at the other end of the Unix socket reads or writes
//! 64 KiB at a time. Beside it, in turn, the same program and another process do that over a pair of Unix sockets. Clocks run
//! from the first byte that is read or written until the last has been taken. Both guest and pair have two processors to share.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed benchmark

use kvmlet_harness as harness;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// What is read and written at a time.
const PORTION: usize = 64 << 10;
/// The argument by which this program is the other end of the pair, at its standard input.
const PEER: &str = "--peer";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To this program.
    Send,
    /// From it.
    Receive,
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(PEER) {
        return peer();
    }
    let (rounds, mib) = (
        harness::argument("--rounds", 9),
        harness::argument("--mib", 256),
    );
    if let Err(reason) = harness::kvm() {
        return println!("SKIPPED: {reason}");
    }
    println!("-- {rounds} rounds of {mib} MiB, 64 KiB at a time; MB/s, medians");
    println!(
        "{:<10} {:>10} {:>10} {:>7}",
        "guest", "guest", "pair", "ratio"
    );
    for way in [Way::Send, Way::Receive] {
        let (mut guest, mut pair, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
        // The first is for caches.
        for round in 0..=rounds {
            let (own, other) = (through_guest(way, mib << 20), through_pair(way, mib << 20));
            if round > 0 {
                guest.push(own);
                pair.push(other);
                ratio.push(100.0 * own / other);
            }
        }
        let (guest, pair) = (median(&mut guest), median(&mut pair));
        let name = format!("{way:?}s").to_lowercase();
        println!(
            "{name:<10} {guest:>10.0} {pair:>10.0} {:>6.0}%",
            median(&mut ratio)
        );
    }
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Moves that many bytes, and returns MB/s.
fn measure(way: Way, mut stream: UnixStream, bytes: usize) -> f64 {
    let mut buffer = vec![0; PORTION];
    if way == Way::Send {
        let mut left = bytes - stream.read(&mut buffer).unwrap();
        let begun = Instant::now();
        while left > 0 {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{left} bytes are missing");
            left -= count;
        }
        let speed = bytes as f64 / begun.elapsed().as_secs_f64() / 1e6;
        // The other side says that it was all, and is heard.
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
        return speed;
    }
    let begun = Instant::now();
    for _ in 0..bytes / PORTION {
        stream.write_all(&buffer).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    // The other side closes when it has all.
    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    bytes as f64 / begun.elapsed().as_secs_f64() / 1e6
}

fn through_guest(way: Way, bytes: usize) -> f64 {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("v");
    let listener = UnixListener::bind(place.path().join("v_1024")).unwrap();
    let mode = format!("{way:?}").to_lowercase();
    let cmdline = format!("mmio=0xd0002000 mode={mode} bytes={bytes}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvmlet"))
        .args(["boot", "--cmdline", &cmdline, "--kernel"])
        .arg(harness::program("virtio_vsock_bench"))
        .arg("--vsock")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().unwrap();
    let speed = measure(way, stream, bytes);
    succeeded(&mut child);
    speed
}

fn succeeded(child: &mut Child) {
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
}

fn through_pair(way: Way, bytes: usize) -> f64 {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([PEER, &format!("{way:?}"), &bytes.to_string()])
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    let speed = measure(way, ours, bytes);
    succeeded(&mut child);
    speed
}

/// Sends or receives as the guest does.
fn peer() {
    let words: Vec<String> = std::env::args().skip(2).collect();
    let bytes: usize = words[1].parse().unwrap();
    let stdin = rustix::stdio::stdin().try_clone_to_owned().unwrap();
    let (mut stream, mut buffer) = (UnixStream::from(stdin), vec![0; PORTION]);
    if words[0] == "Send" {
        return (0..bytes / PORTION).for_each(|_| stream.write_all(&buffer).unwrap());
    }
    while stream.read(&mut buffer).unwrap() > 0 {}
}
