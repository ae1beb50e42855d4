//! Frames of a guest, as TCP over IPv4 takes them: who has our address is answered here.

use super::counted::Counted;
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use std::collections::VecDeque;
use std::net::Ipv4Addr;

/// `virtio_net_hdr_v1`. What it says of checksums and segments matters to nobody here: there is no wire on which bytes
/// change, and a segment may be as long as it likes.
pub const VIRTIO: usize = 12;
/// Two addresses and a type.
const ETHERNET: usize = 14;
/// The longest packet that is sent: Ethernet's. What the guest's interface takes it says itself, of segments.
const MTU: usize = 1500;
/// Whose frames come from here: Firecracker's service has this address.
pub const OURS: [u8; 6] = [0x06, 0x01, 0x23, 0x45, 0x67, 0x01];
/// Frames that wait until the guest takes them.
const MOST_GOING: usize = 64;
/// Addresses in the guest whose hardware addresses are known.
const MOST_NEIGHBOURS: usize = 64;
const TCP: u8 = 6;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing that is answered here, or answered already.
    Other,
    /// A packet of TCP that begins a connection.
    Opening,
    /// Another one.
    Segment,
}

/// The way between a guest and TCP.
#[derive(Debug)]
pub struct Wire {
    address: [u8; 4],
    /// Packets that have come.
    coming: VecDeque<Vec<u8>>,
    /// Frames for the guest, as its device takes them.
    going: VecDeque<Vec<u8>>,
    neighbours: VecDeque<([u8; 4], [u8; 6])>,
}

/// What a frame of the guest's carries: its type and what that says.
fn opened(frame: &[u8]) -> Option<([u8; 6], [u8; 2], &[u8])> {
    let (ethernet, packet) = frame.get(VIRTIO..)?.split_first_chunk::<ETHERNET>()?;
    let [_, _, _, _, _, _, sender @ .., high, low] = *ethernet;
    Some((sender, [high, low], packet))
}

fn array<const COUNT: usize>(bytes: &[u8], start: usize) -> Option<[u8; COUNT]> {
    bytes.get(start..)?.first_chunk().copied()
}

/// What a packet is, by its header.
fn kind(packet: &[u8]) -> Kind {
    const SYN: u8 = 2;
    const ACK: u8 = 0x10;
    let Some(first) = packet.first().filter(|first| **first >> 4 == 4) else {
        return Kind::Other;
    };
    let flags = packet.get(usize::from(first & 0xf) * 4 + 13);
    match (packet.get(9), flags) {
        (Some(&TCP), Some(flags)) if flags & (SYN | ACK) == SYN => Kind::Opening,
        (Some(&TCP), Some(_)) => Kind::Segment,
        _ => Kind::Other,
    }
}

impl Wire {
    pub fn new(address: Ipv4Addr) -> Self {
        Self {
            address: address.octets(),
            coming: VecDeque::new(),
            going: VecDeque::new(),
            neighbours: VecDeque::new(),
        }
    }

    /// What a frame is that the guest has sent.
    pub fn look(frame: &[u8]) -> Kind {
        match opened(frame) {
            Some((_, [8, 0], packet)) => kind(packet),
            _ => Kind::Other,
        }
    }

    /// Takes a frame that the guest has sent.
    pub fn take(&mut self, frame: &[u8], counted: &mut Counted) {
        match opened(frame) {
            None => counted.rx_bad_eth += 1,
            Some((_, [8, 6], question)) => self.answer(question),
            Some((sender, [8, 0], packet)) if kind(packet) != Kind::Other => {
                if let Some(source) = array(packet, 12) {
                    counted.rx_count += 1;
                    self.meet(source, sender);
                    self.coming.push_back(packet.to_vec());
                }
            }
            _ => {}
        }
    }

    /// Tells who has our address (RFC 826), if that is the question.
    fn answer(&mut self, question: &[u8]) {
        const FORM: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
        let (Some(FORM), Some(asker), Some(at)) = (
            array(question, 0),
            array::<6>(question, 8),
            array::<4>(question, 14),
        ) else {
            return;
        };
        if array(question, 24) != Some(self.address) {
            return;
        }
        let mut frame = vec![0; VIRTIO];
        frame.extend(asker.iter().chain(&OURS));
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        frame.extend(OURS.iter().chain(&self.address));
        frame.extend(asker.iter().chain(&at));
        self.send(frame);
    }

    /// Notes where an address of the guest's is. Of too many the one is forgotten that was met first.
    fn meet(&mut self, address: [u8; 4], hardware: [u8; 6]) {
        if let Some(known) = self.neighbours.iter_mut().find(|it| it.0 == address) {
            known.1 = hardware;
            return;
        }
        if self.neighbours.len() == MOST_NEIGHBOURS {
            self.neighbours.pop_front();
        }
        self.neighbours.push_back((address, hardware));
    }

    fn send(&mut self, frame: Vec<u8>) {
        if self.going.len() < MOST_GOING {
            self.going.push_back(frame);
        }
    }

    /// The next frame for the guest.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.going.pop_front()
    }
}

/// A packet that has come.
pub struct Come(Vec<u8>);

impl RxToken for Come {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a packet.
pub struct Room<'a>(&'a mut Wire);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; VIRTIO + ETHERNET + length];
        let result = f(&mut frame[VIRTIO + ETHERNET..]);
        let target: Option<[u8; 4]> = array(&frame, VIRTIO + ETHERNET + 16);
        let known = self.0.neighbours.iter();
        let known = known.rev().find(|known| Some(known.0) == target);
        // Who has sent nothing is sent nothing.
        if let Some((_, hardware)) = known {
            frame[VIRTIO..][..6].copy_from_slice(hardware);
            frame[VIRTIO + 6..][..6].copy_from_slice(&OURS);
            frame[VIRTIO + 12..][..2].copy_from_slice(&[8, 0]);
            self.0.send(frame);
        }
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Come;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Come, Room<'_>)> {
        if self.going.len() >= MOST_GOING {
            return None;
        }
        let packet = self.coming.pop_front()?;
        Some((Come(packet), Room(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        (self.going.len() < MOST_GOING).then_some(Room(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        // The guest may leave them to its device.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}
