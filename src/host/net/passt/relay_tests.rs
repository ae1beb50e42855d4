//! A link between a VM and a passt that are both played by the test.

use super::super::filter::Policy;
use super::*;
use crate::config::Egress;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::net::Ipv4Addr;

struct Everywhere;

impl Routes for Everywhere {
    fn lead_elsewhere(&mut self, _: Ipv4Addr) -> bool {
        true
    }
}

struct Bench {
    link: Link<Everywhere>,
    vm: FrameSocket,
    passt: OwnedFd,
}

const GUEST: [u8; 4] = [10, 107, 255, 254];

impl Bench {
    fn new() -> Self {
        let (vm, near) = FrameSocket::pair().unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (passt, stream) = pair.unwrap();
        let policy = Policy {
            guest: GUEST.into(),
            gateway: [10, 107, 255, 253].into(),
            egress: Egress::All,
            names: true,
            published: Vec::new(),
        };
        let link = Link::new(near, stream, Filter::new(policy, Everywhere));
        Self { link, vm, passt }
    }

    /// The guest sends a frame; whether there is room for it.
    fn send(&self, frame: &[u8]) -> bool {
        let message = [&[0; HEADER], frame].concat();
        rustix::io::write(&self.vm, &message).is_ok()
    }

    fn received(&self) -> Option<Vec<u8>> {
        let mut message = vec![0; 70_000];
        let bytes = rustix::io::read(&self.vm, &mut message).ok()?;
        assert_eq!(message[..HEADER], CHECKED);
        Some(message[HEADER..bytes].to_vec())
    }
}

/// A datagram of this many bytes that the guest sends, or that answers it.
fn datagram(bytes: usize, seed: u8, answers: bool) -> Vec<u8> {
    let (guest, other) = (GUEST, [198, 51, 100, 1]);
    let (source, destination) = match answers {
        false => (guest, other),
        true => (other, guest),
    };
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend((bytes as u16 - 14).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(source);
    frame.extend(destination);
    frame.extend([0, 7, 0, 7, 0, 0, 0, 0]);
    frame.resize(bytes, seed);
    frame
}

fn behind_length(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

/// Takes all that can be read.
fn drain(stream: &OwnedFd, into: &mut Vec<u8>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = rustix::io::read(stream, &mut bytes) {
        into.extend(&bytes[..count]);
    }
}

#[test]
fn frames_go_both_ways_each_behind_what_its_side_expects() {
    let mut bench = Bench::new();
    for bytes in [42, 1514, 65_534] {
        let frame = datagram(bytes, 1, false);
        assert!(bench.send(&frame));
        // Nobody's, which goes nowhere.
        assert!(bench.send(&[0; 60]) && bench.send(&[]));
        bench.link.turn().unwrap();
        let mut sent = Vec::new();
        drain(&bench.passt, &mut sent);
        assert_eq!(sent, behind_length(&frame));
        // However it comes.
        let frame = datagram(bytes, 2, true);
        for part in behind_length(&frame).chunks(bytes / 20) {
            assert_eq!(rustix::io::write(&bench.passt, part).unwrap(), part.len());
            bench.link.turn().unwrap();
        }
        assert_eq!(bench.received(), Some(frame));
        assert_eq!(bench.received(), None);
    }
    let stray = datagram(100, 0, false);
    rustix::io::write(&bench.passt, &behind_length(&stray)).unwrap();
    bench.link.turn().unwrap();
    assert_eq!(bench.received(), None, "it is not for this guest");
}

#[test]
fn what_passt_does_not_take_waits_and_nothing_is_lost() {
    let mut bench = Bench::new();
    let frame = |number: usize| datagram(9000 + number % 50_000, number as u8, false);
    let (mut sent, mut received, mut expected) = (0, Vec::new(), Vec::new());
    for round in 0..200 {
        let mut refused = false;
        while !refused && sent < 600 {
            refused = !bench.send(&frame(sent));
            if !refused {
                expected.extend(behind_length(&frame(sent)));
                sent += 1;
            }
            bench.link.turn().unwrap();
        }
        assert!(bench.link.to_passt.end <= BUFFER);
        if round % 2 == 1 || sent == 600 {
            drain(&bench.passt, &mut received);
            bench.link.turn().unwrap();
        } else {
            assert!(refused, "all that it has sent waits somewhere");
            let [vm, _] = bench.link.slots();
            assert!(!wait::one(vm, wait::Until::Now).unwrap(), "it is not asked");
        }
    }
    drain(&bench.passt, &mut received);
    assert_eq!(sent, 600);
    assert!(received == expected);
}

#[test]
fn what_the_guest_does_not_take_waits_and_nothing_is_lost() {
    let mut bench = Bench::new();
    assert!(bench.send(&datagram(42, 0, false)));
    let frame = |number: usize| datagram(9000 + number % 50_000, number as u8, true);
    let all: Vec<u8> = (0..200)
        .flat_map(|number| behind_length(&frame(number)))
        .collect();
    let (mut written, mut next) = (0, 0);
    while next < 200 {
        // As much as goes in.
        while let Ok(count) = rustix::io::write(&bench.passt, &all[written..]) {
            written += count;
            bench.link.turn().unwrap();
            if written == all.len() {
                break;
            }
        }
        bench.link.turn().unwrap();
        if written < all.len() {
            assert!(bench.link.vm_is_full && bench.link.to_vm.end <= BUFFER);
        }
        while let Some(received) = bench.received() {
            assert!(received == frame(next), "{next}");
            next += 1;
        }
        bench.link.turn().unwrap();
    }
}

#[test]
fn a_length_that_no_frame_has_ends_the_link() {
    for length in [0_u32, 13, LONGEST as u32 + 1, 0x7fff_ffff, u32::MAX] {
        let mut bench = Bench::new();
        assert!(bench.send(&datagram(42, 0, false)));
        bench.link.turn().unwrap();
        let frame = datagram(60, 1, true);
        let stream = [behind_length(&frame), length.to_be_bytes().into()].concat();
        rustix::io::write(&bench.passt, &stream).unwrap();
        let ended = bench.link.turn().unwrap_err();
        assert!(
            matches!(ended, Ended::Length(it) if it == length as usize),
            "{ended}"
        );
        assert_eq!(
            bench.received(),
            Some(frame),
            "what came before is the guest's"
        );
    }
}

#[test]
fn the_end_of_either_side_is_seen() {
    let mut bench = Bench::new();
    bench.link.turn().unwrap();
    bench.passt = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
    .0;
    let [_, passt] = bench.link.slots();
    assert!(wait::one(passt, wait::Until::Now).unwrap());
    assert!(matches!(bench.link.turn(), Err(Ended::Passt)));
    let mut bench = Bench::new();
    bench.vm = FrameSocket::pair().unwrap().0;
    let [vm, _] = bench.link.slots();
    assert!(wait::one(vm, wait::Until::Now).unwrap());
    assert!(matches!(bench.link.turn(), Err(Ended::Vm)));
}
