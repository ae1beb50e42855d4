//! A network interface driven by someone else's driver, on a real tap in a network namespace of the test's own.

use crate::harness::{Guest, Test, deadline, patience::eventually};
use crate::packets::{enter_own_network, frame, packet_socket, tap};
use kvmlet_spec::Net;
use kvmlet_vmm::ExitReason;
use std::io::{Read, Write};
use std::time::Instant;

pub const TESTS: &[Test] = &[
    ("virtio_net_echoes_frames_of_a_tap", echo),
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
