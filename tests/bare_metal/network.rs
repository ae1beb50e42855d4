//! A network interface driven by someone else's driver, on a real tap in a network namespace of the test's own.

use crate::cli::{kvmlet, run, text};
use crate::harness::{Guest, Test, deadline, patience::eventually};
use crate::packets::{enter_own_network, frame, packet_socket, tap};
use kvmlet_spec::Net;
use kvmlet_vmm::ExitReason;
use std::fs::File;
use std::io::{Read, Write};
use std::time::Instant;

pub const TESTS: &[Test] = &[
    ("virtio_net_echoes_frames_of_a_tap", echo),
    ("the_hosts_kernel_moves_frames", by_the_kernel),
    (
        "what_the_hosts_kernel_cannot_is_told",
        refused_by_the_kernel,
    ),
    ("virtio_net_with_malformed_queues_goes_on", malformed),
];

/// The entropy source has the first slot, the interface the one behind.
const CMDLINE: &str = "mmio=0xd0002000";
const HEADER_BYTES: usize = 14;

fn echo() {
    // A thread of its own: a network namespace belongs to a thread, and this one ends with the test.
    std::thread::spawn(|| {
        if let Err(reason) = enter_own_network() {
            eprintln!("SKIPPED: {reason}");
            return;
        }
        let guest = Guest::boot_with("virtio_net", |c| c.cmdline(CMDLINE).net(Net::default()));
        guest.output.expect("mac=");
        let mut socket = packet_socket(&tap());
        for length in [46, 200, 1000, 1500] {
            let payload: Vec<u8> = (0..length).map(|n| (n * 7 + length) as u8).collect();
            socket.write_all(&frame(&payload)).unwrap();
            assert_eq!(receive(&mut socket), payload, "{length} bytes");
        }
        let sent = 4;
        socket
            .write_all(&frame(
                b"quit, and fill the frame up to the least size that it has",
            ))
            .unwrap();
        guest.wait().unwrap();
        eventually("as many frames are counted as came back", || {
            let stats = guest.vm.stats();
            stats.interfaces.len() == 1 && stats.interfaces[0].transmit.frames == sent
        });
        let (reason, output) = guest.finish();
        assert_eq!(reason, ExitReason::Shutdown { code: 0 });
        assert!(output.contains(&format!("echoed={sent}")), "{output}");
    })
    .join()
    .unwrap();
}

/// Why the host's kernel does not serve interfaces here, if it does not.
pub fn no_vhost() -> Option<String> {
    let open = File::options().read(true).write(true).open(VHOST);
    open.err().map(|error| format!("{VHOST}: {error}"))
}

const VHOST: &str = "/dev/vhost-net";

/// By vhost, at fixed addresses and on a bus; what comes while the guest stands still comes when it goes on.
fn by_the_kernel() {
    if let Some(reason) = no_vhost() {
        return println!("SKIPPED: {reason}");
    }
    let net = || "vhost".parse::<Net>().unwrap();
    for is_on_bus in [false, true] {
        let test = move || {
            if let Err(reason) = enter_own_network() {
                return println!("SKIPPED: {reason}");
            }
            let cmdline = if is_on_bus { "bus=pci" } else { CMDLINE };
            let guest = Guest::boot_with("virtio_net", |c| {
                c.cmdline(cmdline).net(net()).pci(is_on_bus)
            });
            guest.output.expect("mac=");
            let mut socket = packet_socket(&tap());
            for length in [46, 200, 1000, 1500] {
                let payload: Vec<u8> = (0..length).map(|n| (n * 7 + length) as u8).collect();
                socket.write_all(&frame(&payload)).unwrap();
                assert_eq!(receive(&mut socket), payload, "{length} bytes");
            }
            for round in 0..10_u8 {
                let payload = [round; 100];
                guest.vm.pause().unwrap();
                socket.write_all(&frame(&payload)).unwrap();
                guest.vm.resume().unwrap();
                assert_eq!(receive(&mut socket), payload);
            }
            let quit = b"quit, and fill the frame up to the least size that it has";
            socket.write_all(&frame(quit)).unwrap();
            let (reason, output) = guest.finish();
            assert_eq!(reason, ExitReason::Shutdown { code: 0 });
            assert!(output.contains("echoed=14"), "{output}");
        };
        std::thread::spawn(test).join().unwrap();
    }
}

/// Before there is a VM, and with what to do about it.
fn refused_by_the_kernel() {
    let boot = |net: &str| {
        let output = run(kvmlet("ready").args(["--net", net]));
        (output.status.code(), text(&output.stderr))
    };
    let (code, said) = boot("vhost,rx-packets=5");
    assert_eq!(code, Some(125), "{said}");
    assert!(said.contains("off, as with limits"), "{said}");
    if no_vhost().is_none() {
        return;
    }
    let test = move || {
        if let Err(reason) = enter_own_network() {
            return println!("SKIPPED: {reason}");
        }
        let (code, said) = boot("vhost");
        assert_eq!(code, Some(125), "{said}");
        assert!(said.contains("cannot open /dev/vhost-net"), "{said}");
        assert!(said.contains("modprobe vhost_net"), "{said}");
        assert!(said.contains("leave out `vhost` of --net"), "{said}");
    };
    std::thread::spawn(test).join().unwrap();
}

fn malformed() {
    std::thread::spawn(|| {
        if let Err(reason) = enter_own_network() {
            eprintln!("SKIPPED: {reason}");
            return;
        }
        let guest = Guest::boot_with("virtio_malformed", |c| {
            c.cmdline("devices=0xd0002000").net(Net::default())
        });
        let (reason, output) = guest.finish();
        assert_eq!(reason, ExitReason::Shutdown { code: 0 }, "{output}");
        assert!(output.contains("device 1: 12 ways"), "{output}");
    })
    .join()
    .unwrap();
}

/// The payload of the next frame that the guest has sent back: it comes with the addresses exchanged.
fn receive(socket: &mut std::fs::File) -> Vec<u8> {
    let deadline = Instant::now() + deadline();
    loop {
        let mut buffer = [0; 2048];
        match socket.read(&mut buffer) {
            Ok(count) if buffer[..6] == [0x02, 0, 0, 0, 0, 2] => {
                return buffer[HEADER_BYTES..count].to_vec();
            }
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        assert!(Instant::now() < deadline, "no frame came back");
    }
}
