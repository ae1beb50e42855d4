//! An interface with a socket for each queue of its tap: frames wait there, and what is sent comes out there.

use super::super::Manners;
use super::super::subject::{Limit, Part, Subject};
use kvmlet_spec::{MacAddress, Metadata, RateLimit};
use kvmlet_vmm::devices::virtio::net::{
    Direction, NetHandle, NetParams, NetSpec, Offloads, Port, WithMetadata,
};
use kvmlet_vmm::devices::virtio::{DeviceSpec, VirtioDevice};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

/// Sizes of the header in front of a frame, of the shortest frame and of the longest, in bytes.
const HEADER_BYTES: usize = 12;
const SHORTEST: usize = 14;
const LONGEST: usize = SHORTEST + 4 + (1 << 16);
/// VIRTIO_NET_F_CTRL_VQ and VIRTIO_NET_F_MQ.
const CONTROL: u64 = 1 << 17;
const MULTI_QUEUE: u64 = 1 << 22;

/// What is chosen to ask for a receive buffer of 65563 bytes and another of 16.
const LARGE_BUFFER: [u8; 8] = [5 | 1 << 3, 0, 0, 2, 0, 0, 0, 0];

/// Whom some interfaces have a metadata service at.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// What a frame for it begins with, of TCP, and what a question for it does.
const SEGMENT: [u8; 34] = [
    6, 1, 2, 3, 4, 5, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2,
    169, 254, 169, 254,
];
const QUESTION: [u8; 42] = [
    255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1,
    10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 169, 254, 169, 254,
];

struct Socket(UnixDatagram);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Port for Socket {
    fn set_offloads(&self, _: Offloads) -> io::Result<()> {
        Ok(())
    }

    fn attach(&self, _: bool) -> io::Result<()> {
        Ok(())
    }
}

pub struct Net {
    handle: NetHandle,
    /// Towards the guest, and from it.
    limits: [Limit; 2],
    /// The other ends of the queue pairs.
    peers: Vec<UnixDatagram>,
    /// The other end of the metadata service's socket, if there is one.
    service: Option<UnixDatagram>,
    /// Pairs that are served, and where the control queue is.
    pairs: u32,
    control: Option<u32>,
    /// What the last frame that came out was cut into.
    buffer: Vec<u8>,
}

/// An interface as the first bytes of an input want it.
pub fn net(header: [u8; 8], frames: &[u8]) -> (Box<dyn VirtioDevice>, Net) {
    let [_, kind, limit, transmit_limit, ..] = header;
    let count = usize::from(kind >> 6) + 1;
    let pairs: Vec<_> = (0..count)
        .map(|_| UnixDatagram::pair().expect("a pair of sockets"))
        .collect();
    let mut peers = Vec::new();
    let mut ports: Vec<Arc<dyn Port>> = Vec::new();
    for (ours, theirs) in pairs {
        ours.set_nonblocking(true)
            .expect("a socket that does not wait");
        theirs
            .set_nonblocking(true)
            .expect("a socket that does not wait");
        peers.push(ours);
        ports.push(Arc::new(Socket(theirs)));
    }
    let mut service = None;
    if kind & 8 != 0 {
        let (ours, theirs) = UnixDatagram::pair().expect("a pair of sockets");
        for socket in [&ours, &theirs] {
            let set = socket.set_nonblocking(true);
            set.expect("a socket that does not wait");
        }
        let metadata = Metadata::new(ADDRESS, theirs.into());
        ports[0] = Arc::new(WithMetadata::new(ports[0].clone(), metadata));
        service = Some(ours);
    }
    // Some that wait already, of each size that makes a difference.
    let sizes = [
        26,
        90,
        1526,
        9000,
        HEADER_BYTES + LONGEST,
        HEADER_BYTES + LONGEST + 1,
    ];
    for (index, chunk) in frames.chunks(12).take(usize::from(kind & 7)).enumerate() {
        let _ =
            peers[index % count].send(&frame(sizes[usize::from(chunk[0]) % sizes.len()], chunk));
    }
    let limits = [Limit::new(limit), Limit::new(transmit_limit)];
    let params = NetParams {
        name: "eth0".into(),
        mac: MacAddress::local([0; 5]),
        mtu: Some(1500),
        receive_limit: limits[0].limit,
        transmit_limit: limits[1].limit,
        poll: Duration::from_micros(50),
        vhost: false,
    };
    let (device, handle) = NetSpec { params, ports }.build().expect("a device");
    let device: Box<dyn VirtioDevice> = Box::new(device);
    let features = Manners::new(header, &*device).features;
    let controlled = features & CONTROL != 0;
    let pairs = if controlled && features & MULTI_QUEUE != 0 {
        count as u32
    } else {
        1
    };
    let control = controlled.then_some(2 * pairs);
    (
        device,
        Net {
            handle,
            limits,
            peers,
            service,
            pairs,
            control,
            buffer: vec![0; 1 << 17],
        },
    )
}

/// A frame with a header in front, mostly one that the device lets through.
fn frame(bytes: usize, chunk: &[u8]) -> Vec<u8> {
    let mut frame: Vec<u8> = chunk.iter().copied().cycle().take(bytes).collect();
    if chunk.len() < 2 || chunk[1] & 3 != 0 {
        let header = bytes.min(HEADER_BYTES);
        frame[..header].fill(0);
    }
    frame
}

impl Subject for Net {
    fn request(
        &self,
        queue: u32,
        [what, low, high, cut, flags, gso, size, offset]: [u8; 8],
    ) -> Vec<Part> {
        if Some(queue) == self.control {
            let command = match what & 3 {
                0 => vec![4, 0, low & 7, 0],
                1 => vec![5, 0, low, high, 0, 0, 0, 0, 0, 0],
                2 => vec![low, high],
                _ => vec![4, 0, low, high],
            };
            return vec![Part::readable(command), Part::writable(1)];
        }
        if queue % 2 == 0 {
            // A receive buffer, in one piece or several.
            let first = [12, 64, 1526, 4096, 65562, 65563, 13, 300][usize::from(what & 7)];
            let more = (0..u32::from(what >> 3 & 3)).map(|_| Part::writable(u32::from(cut) * 8));
            return [Part::writable(first)].into_iter().chain(more).collect();
        }
        let mut header = vec![0; HEADER_BYTES];
        (header[0], header[1]) = (flags & 3, gso);
        (header[4], header[6], header[8]) = (size, offset, cut);
        let length = match what & 7 {
            0 => usize::from(low),
            1 => LONGEST + 1 - usize::from(low & 1),
            _ => usize::from(u16::from_le_bytes([low, high & 0xf])),
        };
        let mut contents = vec![what; length];
        let known: &[u8] = match what & 7 {
            3 => &SEGMENT,
            4 => &QUESTION,
            _ => &[],
        };
        let known = &known[..known.len().min(length)];
        contents[..known.len()].copy_from_slice(known);
        let (front, back) = contents.split_at(usize::from(cut).min(length));
        match what & 8 {
            0 => {
                header.extend(&contents);
                vec![Part::readable(header)]
            }
            _ => [header, front.into(), back.into()]
                .into_iter()
                .map(Part::readable)
                .collect(),
        }
    }

    /// A receive buffer waits for a frame.
    fn answers(&self, queue: u32) -> bool {
        Some(queue) == self.control || queue < 2 * self.pairs && queue % 2 == 1
    }

    /// A frame comes for each receive buffer, which has room for the longest one.
    fn at_once(&mut self, queue: u32, choice: [u8; 8]) -> Option<[u8; 8]> {
        match queue {
            0 => {
                let sent = self.peers[0].send(&frame(HEADER_BYTES + SHORTEST, &[0; 2]));
                sent.is_ok().then_some(LARGE_BUFFER)
            }
            _ => self.answers(queue).then_some(choice),
        }
    }

    fn act(&mut self, choice: [u8; 8]) {
        let [what, pair, value, ..] = choice;
        let direction = match what & 4 {
            0 => Direction::Receive,
            _ => Direction::Transmit,
        };
        match what & 3 {
            0 => {
                self.limits[usize::from(what >> 2 & 1)].constant = false;
                self.handle
                    .set_rate_limit(direction, Limit::new(value).limit);
            }
            1 => drop(self.handle.stats()),
            _ => {
                let bytes = usize::from(u16::from_le_bytes([value, choice[3]]));
                let count = self.peers.len();
                let frame = frame(bytes, &choice[4..]);
                let _ = match &self.service {
                    Some(service) if pair & 0x80 != 0 => service.send(&frame),
                    _ => self.peers[usize::from(pair) % count].send(&frame),
                };
            }
        }
    }

    fn lift_limits(&mut self) -> bool {
        self.check_limits();
        for direction in [Direction::Receive, Direction::Transmit] {
            self.handle.set_rate_limit(direction, RateLimit::NONE);
        }
        self.limits
            .iter_mut()
            .for_each(|limit| limit.constant = false);
        true
    }

    /// What comes out has a header that the host can rely on, whatever the guest does to it meanwhile.
    fn look(&mut self) {
        for peer in self.peers.iter().chain(&self.service) {
            while let Ok(bytes) = peer.recv(&mut self.buffer) {
                let (header, frame) = self.buffer[..bytes].split_at(HEADER_BYTES);
                let field =
                    |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
                assert!(
                    (SHORTEST..=LONGEST).contains(&frame.len()),
                    "a frame of {}",
                    frame.len()
                );
                assert_eq!((header[0] & !1, field(10)), (0, 0), "flags, and buffers");
                let end = field(6) + field(8) + 2;
                assert!(header[0] == 0 || end <= frame.len(), "a checksum at {end}");
                assert!(field(2) <= frame.len(), "a header of {}", field(2));
                let segmented = header[1] != 0;
                assert!(
                    !segmented || matches!(header[1] & 0x7f, 1 | 4),
                    "{:#x}",
                    header[1]
                );
                assert!(
                    !segmented || header[0] == 1 && field(4) > 0,
                    "segments of {}",
                    field(4)
                );
            }
        }
    }

    fn check(&mut self) {
        self.check_limits();
    }
}

impl Net {
    fn check_limits(&self) {
        let stats = self.handle.stats();
        for (limit, stats) in self.limits.iter().zip([stats.receive, stats.transmit]) {
            limit.check(stats.frames, stats.bytes, LONGEST as u64);
        }
    }
}
