//! A guest that sends any frames to its metadata service, most of them segments of TCP that fit what it was sent: little is held
//! and sent for it, and who keeps to the rules is served at last.
#![no_main]

mod memory;

use kvmlet_serve::metadata::{Answers, Stack, Version};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use std::net::Ipv4Addr;
use std::time::Duration;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Headers of the device and of Ethernet; and those with IPv4's, and with TCP's.
const PACKET: usize = 12 + 14;
const SEGMENT: usize = PACKET + 20;
const DATA: usize = SEGMENT + 20;
/// No more is held for the guest, in bytes: connections, answers, and what waits.
const MEMORY: usize = 4 << 20;
/// No frame of a service is longer, and no more come of one frame.
const LONGEST: usize = PACKET + 1500;
const MOST: usize = 64 + 1;

/// Pieces that requests are put together from.
const PIECES: [&str; 16] = [
    "GET /",
    "PUT /latest/api/token",
    "POST /",
    "a",
    "//a",
    "/b/",
    "long",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "X-metadata-token-ttl-seconds: 60\r\n",
    "X-metadata-token: 0\r\n",
    "Accept: application/json\r\n",
    "Connection: close\r\n",
    "Content-Length: 5\r\n",
    "X-Forwarded-For: a\r\n",
    "\r\n",
];

/// What a guest knows of a connection.
#[derive(Clone, Copy, Default)]
struct Known {
    next: u32,
    acknowledged: u32,
}

struct Guest {
    stack: Stack,
    answers: Answers,
    now: Duration,
    /// By the port of the guest.
    known: [Known; 32],
    heard: Vec<u8>,
}

fn word(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(frame[at..at + 4].try_into().expect("four bytes"))
}

impl Guest {
    fn segment(&mut self, port: u8, flags: u8, skew: u32, data: &[u8]) {
        let known = &mut self.known[usize::from(port) % 32];
        let mut frame = vec![0; DATA];
        frame[12..26].copy_from_slice(&[6, 1, 0x23, 0x45, 0x67, 1, 2, 0, 0, 0, 0, 1, 8, 0]);
        frame[PACKET] = 0x45;
        let length = (40 + data.len()) as u16;
        frame[PACKET + 2..PACKET + 4].copy_from_slice(&length.to_be_bytes());
        (frame[PACKET + 8], frame[PACKET + 9]) = (64, 6);
        frame[PACKET + 12..PACKET + 16].copy_from_slice(&[10, 0, 0, port >> 5]);
        frame[PACKET + 16..PACKET + 20].copy_from_slice(&ADDRESS.octets());
        frame[SEGMENT..SEGMENT + 4].copy_from_slice(&[4, port % 32, 0, 80]);
        let sequence = known.next.wrapping_add(skew);
        frame[SEGMENT + 4..SEGMENT + 8].copy_from_slice(&sequence.to_be_bytes());
        frame[SEGMENT + 8..SEGMENT + 12].copy_from_slice(&known.acknowledged.to_be_bytes());
        (frame[SEGMENT + 12], frame[SEGMENT + 13]) = (5 << 4, flags);
        frame[SEGMENT + 14..SEGMENT + 16].copy_from_slice(&[0x40, 0]);
        frame.extend(data);
        let taken = data.len() as u32 + u32::from(flags & 3 != 0);
        known.next = sequence.wrapping_add(taken);
        self.take(&frame);
    }

    fn take(&mut self, frame: &[u8]) {
        self.stack.take(frame, self.now, &mut self.answers);
        self.hear();
    }

    fn hear(&mut self) {
        let mut count = 0;
        while let Some(frame) = self.stack.next_frame() {
            count += 1;
            assert!(
                (42..=LONGEST).contains(&frame.len()),
                "{} bytes",
                frame.len()
            );
            assert_eq!(frame[..12], [0; 12]);
            if frame.len() >= DATA && frame[24..26] == [8, 0] {
                assert_eq!(frame[PACKET + 12..PACKET + 16], ADDRESS.octets());
                let port = usize::from(frame[SEGMENT + 3]) % 32;
                let header = usize::from(frame[SEGMENT + 12] >> 4) * 4;
                let data = &frame[SEGMENT + header..];
                let taken = data.len() as u32 + u32::from(frame[SEGMENT + 13] & 3 != 0);
                self.known[port].acknowledged = word(&frame, SEGMENT + 4).wrapping_add(taken);
                self.heard.extend(data);
            }
        }
        assert!(count <= MOST, "{count} frames");
        self.heard.drain(..self.heard.len().saturating_sub(1 << 16));
        memory::expect_at_most(MEMORY);
    }
}

fuzz_target!(|input: &[u8]| {
    memory::begin();
    let Some((first, mut rest)) = input.split_first() else {
        return;
    };
    let version = match first & 1 {
        0 => Version::V1,
        _ => Version::V2,
    };
    let mut answers = Answers::new(version, first & 2 != 0, [1; 32]);
    answers.set(json!({ "a": { "b": "c", "n": 1 }, "long": "x".repeat(60_000) }));
    let mut guest = Guest {
        stack: Stack::new(ADDRESS, 1),
        answers,
        now: Duration::ZERO,
        known: [Known::default(); 32],
        heard: Vec::new(),
    };
    while let Some(([what, port, flags, more], behind)) = rest.split_first_chunk() {
        let (own, behind) = behind.split_at(behind.len().min(usize::from(*more) & 63));
        rest = behind;
        // The last eight are another's: see below.
        let port = &(port % 0xe0);
        match what & 7 {
            0 => guest.take(own),
            1 => {
                guest.now += Duration::from_millis(u64::from(*flags) << (more >> 6) << 3);
                guest.stack.turn(guest.now, &mut guest.answers);
                guest.hear();
            }
            // As a connection begins, and what is said on it.
            2 => {
                guest.segment(*port, 2, 0, &[]);
                guest.segment(*port, 0x10, 0, &[]);
            }
            3 => guest.segment(*port, 0x18, 0, own),
            4 => guest.segment(*port, *flags, u32::from(*more) << 8, own),
            _ => {
                let said = own.iter().map(|byte| PIECES[usize::from(byte % 16)]);
                guest.segment(*port, 0x18, 0, said.collect::<String>().as_bytes());
            }
        }
    }
    // Time enough for each place to be free again.
    for _ in 0..64 {
        guest.now += Duration::from_secs(2);
        guest.stack.turn(guest.now, &mut guest.answers);
        guest.hear();
    }
    guest.heard.clear();
    // Its own address: nothing that was said before is of its connection.
    let port = 0xe0 | 31;
    guest.known[31] = Known {
        next: 1 << 31,
        acknowledged: 0,
    };
    guest.segment(port, 2, 0, &[]);
    guest.segment(port, 0x10, 0, &[]);
    guest.segment(
        port,
        0x18,
        0,
        b"PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 1\r\n\r\n",
    );
    let heard = String::from_utf8_lossy(&guest.heard);
    assert!(heard.contains("HTTP/1.1 200 "), "{heard}");
});
