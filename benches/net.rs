//! An interface of a VM against the same work on the host: `cargo bench --bench net [-- --rounds N]`.
//!
//! No TCP: Ethernet frames from the guest into a tap, and from a packet socket through a tap to the guest. The
//! guest is bare metal with someone else's virtqueues (`virtio-drivers`) and runs at native speed on any KVM. The
//! host side is a thread that writes frames to a tap of its own, or reads them, one system call each, as any
//! user-space program must. Both take turns, round by round, in a network namespace of the benchmark's own. The
//! guest's clock is its TSC, from first to last frame; the host's is monotonic, likewise. Medians.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failure here is a failed benchmark

#[path = "../tests/harness/mod.rs"]
#[allow(dead_code)]
mod harness;
#[path = "../tests/harness/packets.rs"]
mod packets;

use kvmlet::config::Net;
use kvmlet::host::net::Tap;
use packets::{enter_own_network, frame, packet_socket, tap};
use rustix::event::{PollFd, PollFlags, poll};
use std::ffi::CString;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

const FRAMES: u64 = 50_000;
const SIZES: [usize; 2] = [60, 1514];
/// The entropy source has the first slot, the interface the one behind.
const SLOT: &str = "mmio=0xd0002000";
/// virtio_net_hdr_v1 in front of each frame of a tap.
const HEADER_BYTES: usize = 12;

fn main() {
    let rounds = harness::argument("--rounds", 5);
    if let Err(reason) = harness::kvm().and_then(|()| enter_own_network()) {
        println!("SKIPPED: {reason}");
        return;
    }
    println!("-- {rounds} rounds of {FRAMES} frames; thousand frames per second");
    println!(
        "{:<16} {:>8} {:>8} {:>7} {:>12}",
        "", "host", "guest", "ratio", "guest Gbit/s"
    );
    for size in SIZES {
        let (mut host, mut guest) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            guest.push(guest_sends(size));
            host.push(host_sends(size));
        }
        report(&format!("send {size} bytes"), size, &mut host, &mut guest);
        let (mut host, mut guest) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            guest.push(guest_receives(size));
            host.push(host_receives(size));
        }
        report(&format!("receive {size}"), size, &mut host, &mut guest);
    }
}

fn report(name: &str, size: usize, host: &mut [f64], guest: &mut [f64]) {
    let median = |samples: &mut [f64]| {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    };
    let (host, guest) = (median(host), median(guest));
    let gigabits = guest * size as f64 * 8.0 / 1e9;
    let ratio = guest / host * 100.0;
    println!(
        "{name:<16} {:>8.0} {:>8.0} {ratio:>6.0}% {gigabits:>12.2}",
        host / 1e3,
        guest / 1e3
    );
}

/// Frames per second, as the guest says.
fn rate(output: &str) -> f64 {
    let line = output
        .lines()
        .find(|line| line.contains("tsc="))
        .expect(output);
    let number = |key| harness::number(line, key);
    number("frames=") * number("khz=") * 1e3 / number("tsc=")
}

fn boot(mode: &str, size: usize) -> harness::Guest {
    let cmdline = format!("{SLOT} mode={mode} frames={FRAMES} size={size}");
    harness::Guest::boot_with("virtio_net_bench", |c| {
        c.cmdline(cmdline).net(Net::default())
    })
}

fn guest_sends(size: usize) -> f64 {
    let guest = boot("send", size);
    guest.vm.wait().expect("an end");
    rate(&guest.output.text())
}

fn guest_receives(size: usize) -> f64 {
    let guest = boot("receive", size);
    guest.output.expect("ready");
    flood(&tap(), size, || {
        guest.vm.state() == kvmlet::vm::State::Stopped
    });
    guest.vm.wait().expect("an end");
    rate(&guest.output.text())
}

/// Sends frames until `done`: what the tap's queue has no room for is lost, so there is no number to send.
fn flood(tap: &CString, size: usize, done: impl Fn() -> bool) {
    let mut socket = packet_socket(tap);
    let frame = frame(&vec![0; size - 14]);
    while !done() {
        for _ in 0..64 {
            // ENOBUFS: the queue is full, which is what a flood is for.
            let _ = socket.write_all(&frame);
        }
    }
}

/// A tap of the benchmark's own, up.
fn own_tap() -> Tap {
    let tap = Tap::create("bench%d", 1).expect("a tap");
    let up = Command::new("ip")
        .args(["link", "set", tap.name(), "up"])
        .status()
        .expect("ip");
    assert!(up.success());
    tap
}

fn host_sends(size: usize) -> f64 {
    let tap = own_tap();
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend(frame(&vec![0; size - 14]));
    let start = Instant::now();
    for _ in 0..FRAMES {
        rustix::io::write(&*tap.queues()[0], &bytes).expect("a frame is taken");
    }
    FRAMES as f64 / start.elapsed().as_secs_f64()
}

fn host_receives(size: usize) -> f64 {
    let tap = own_tap();
    let name = CString::new(tap.name()).expect("a name");
    let queue = &*tap.queues()[0];
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            flood(&name, size, || {
                stop.load(std::sync::atomic::Ordering::Relaxed)
            })
        });
        let mut buffer = [0; 2048];
        let (mut taken, mut start) = (0, None);
        while taken < FRAMES {
            match rustix::io::read(queue, &mut buffer) {
                Ok(count) if count == HEADER_BYTES + size => {
                    start.get_or_insert_with(Instant::now);
                    taken += 1;
                }
                Ok(_) => {}
                Err(_) => {
                    let _ = poll(&mut [PollFd::new(queue, PollFlags::IN)], None);
                }
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        taken as f64
            / start
                .map_or(Duration::ZERO, |start| start.elapsed())
                .as_secs_f64()
    })
}
