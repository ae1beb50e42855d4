//! Sockets between guest and host.

mod host;
mod program;

use super::super::subject::{Part, Subject};
use host::{Host, Speaker};
use kvmlet_vmm::devices::virtio::vsock::{FromHost, MOST_CONNECTIONS, VsockHandle, VsockSpec};
use kvmlet_vmm::devices::virtio::{DeviceSpec, VirtioDevice};
use program::Program;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::Once;

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const EVENTS: u32 = 2;
const CID: u64 = 7;
const HOST_CID: u64 = 2;
/// Size of a packet's header (virtio 1.2 §5.10.6), and that of an event.
const HEADER_BYTES: u32 = 44;
const EVENT_BYTES: u32 = 4;
/// Ports of the guest; of the host, of its services and of programs that want to be connected.
const GUEST_PORTS: u32 = 0x400;
const HOST_PORTS: u32 = 50;
const PROGRAM_PORTS: u32 = 1 << 30;
/// What packets are about (§5.10.6): request 1, response 2, reset 3, shutdown 4, data, credit 6 and 7.
const OPERATIONS: [u16; 16] = [
    1, 1, 1, 2, 2, 2, 3, 4, DATA, DATA, DATA, DATA, 6, 7, 0, 0x105,
];
const DATA: u16 = 5;
/// Sizes of a guest's buffer.
const ROOMS: [u32; 8] = [1 << 18, 1 << 16, 4096, 64, 1, 0, 1 << 31, u32::MAX];
/// Refusals that wait for the guest, with which a device hears nothing more of it.
const MOST_REPLIES: u64 = 256;
/// Programs at a time.
const MOST_PROGRAMS: usize = 64;

pub struct Vsock {
    handle: VsockHandle,
    host: Speaker,
    programs: Vec<Program>,
    /// The ports of the guest that programs wanted, in their order: which is that of the host's ports.
    wanted: Vec<u32>,
    /// The guest's wishes are granted as soon as they are heard.
    obliging: bool,
    /// New programs take what they are sent.
    reads: bool,
}

/// A device as the first bytes of an input want it.
pub fn vsock(header: [u8; 8]) -> (Box<dyn VirtioDevice>, Vsock) {
    // The command ignores it, too; here it is not this language's `main` that begins.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: nothing is called when it comes.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    });
    let kind = header[1];
    let (host, speaker) = Host::new(kind & 1 != 0, kind & 8 != 0);
    let spec = VsockSpec {
        guest_cid: CID as u32,
        host,
    };
    let (device, handle) = spec.build().expect("events");
    let mut vsock = Vsock {
        handle,
        host: speaker,
        programs: Vec::new(),
        wanted: Vec::new(),
        obliging: kind & 2 == 0,
        reads: kind & 4 == 0,
    };
    // Some that wait already.
    for port in 0..u32::from(kind >> 6) {
        vsock.connect(port);
    }
    (Box::new(device), vsock)
}

impl Vsock {
    /// A program wants to be connected to the guest; false if the device does not listen.
    fn connect(&mut self, port: u32) -> bool {
        let (ours, stream) = host::stream();
        self.add(Program::wanting(ours, self.reads));
        self.offer(port, stream)
    }

    fn offer(&mut self, port: u32, stream: OwnedFd) -> bool {
        let port = GUEST_PORTS + port % 4;
        let said = self.host.say(FromHost::Connect { port, stream });
        if said {
            self.wanted.push(port);
        }
        said
    }

    /// Ports of guest and host: of a connection that a program wanted, or of one that the guest may want.
    fn ports(&self, choice: u8) -> (u32, u32) {
        let back = usize::from(choice >> 1) % self.wanted.len().max(1) + 1;
        match self.wanted.len().checked_sub(back) {
            Some(number) if choice & 1 == 0 => (self.wanted[number], PROGRAM_PORTS + number as u32),
            _ => (
                GUEST_PORTS + u32::from(choice >> 1 & 1),
                HOST_PORTS + u32::from(choice >> 2 & 1),
            ),
        }
    }

    /// Answers the guest's next wish, if it has one.
    fn answer(&mut self, grants: bool) -> bool {
        let Some(question) = self.host.question() else {
            return false;
        };
        let id = question.id;
        let answer = match grants {
            false => FromHost::Refused { id },
            true => {
                let (ours, stream) = host::stream();
                self.add(Program::wanted(ours, self.reads));
                FromHost::Connected { id, stream }
            }
        };
        self.host.say(answer)
    }

    /// What a guest may send: nearly all of it makes sense where it comes.
    fn packet(&self, choice: [u8; 8]) -> Vec<Part> {
        let [what, ports, low, _, flags, room, forwarded, odd] = choice;
        let (guest, host) = self.ports(ports);
        let operation = OPERATIONS[usize::from(what & 15)];
        let data = match operation == DATA || what >> 4 == 15 {
            true => vec![what; data_bytes(choice)],
            false => Vec::new(),
        };
        let told = match odd & 15 {
            0 => data.len() as u32 ^ 1 << (odd >> 4),
            _ => data.len() as u32,
        };
        let mut packet = Vec::new();
        packet.extend((CID ^ u64::from(odd == 0x11)).to_le_bytes());
        packet.extend((HOST_CID ^ u64::from(odd == 0x22)).to_le_bytes());
        packet.extend(guest.to_le_bytes());
        packet.extend(host.to_le_bytes());
        packet.extend(told.to_le_bytes());
        packet.extend((1 + u16::from(odd == 0x33)).to_le_bytes());
        packet.extend(operation.to_le_bytes());
        packet.extend(u32::from(flags & 7).to_le_bytes());
        packet.extend(ROOMS[usize::from(room & 7)].to_le_bytes());
        packet.extend((u32::from(forwarded) << (room >> 3 & 15)).to_le_bytes());
        // In one piece, cut behind the header, or within it.
        let cuts = [
            HEADER_BYTES as usize + data.len(),
            HEADER_BYTES as usize,
            usize::from(low % 44),
        ];
        packet.extend(data);
        let rest = packet.split_off(cuts[usize::from(flags >> 4) % 3]);
        vec![Part::readable(packet), Part::readable(rest)]
    }

    fn add(&mut self, program: Program) {
        if self.programs.len() == MOST_PROGRAMS {
            self.programs.remove(0);
        }
        self.programs.push(program);
    }
}

/// How many bytes of data that is.
fn data_bytes([_, _, low, high, ..]: [u8; 8]) -> usize {
    usize::from(u16::from_le_bytes([low, high & 0x1f])) << (high >> 7)
}

impl Subject for Vsock {
    fn request(&self, queue: u32, choice: [u8; 8]) -> Vec<Part> {
        let what = choice[0];
        match queue {
            RECEIVE => {
                // With room for some data; in one piece or two.
                let bytes = [
                    1,
                    2,
                    100,
                    4052,
                    4096,
                    65536,
                    65537,
                    data_bytes(choice) as u32 + 1,
                ];
                let bytes = bytes[usize::from(what & 7)];
                let first = [HEADER_BYTES + bytes, HEADER_BYTES, 20];
                let first = first[usize::from(what >> 3) % 3];
                let rest = HEADER_BYTES + bytes - first;
                vec![Part::writable(first), Part::writable(rest)]
            }
            EVENTS => vec![Part::writable(EVENT_BYTES + u32::from(what & 1))],
            _ => self.packet(choice),
        }
    }

    /// A packet is taken unless the guest leaves too many refusals where they are; buffers wait for something.
    fn answers(&self, queue: u32) -> bool {
        queue == TRANSMIT && self.handle.stats().refused < MOST_REPLIES
    }

    fn at_once(&mut self, queue: u32, choice: [u8; 8]) -> Option<[u8; 8]> {
        match queue {
            EVENTS => {
                self.handle.reset_transport();
                Some(choice)
            }
            RECEIVE => {
                let is_full = self.handle.stats().connections as usize + 16 > MOST_CONNECTIONS;
                (!is_full && self.connect(choice[1].into())).then_some(choice)
            }
            _ => self.answers(queue).then_some(choice),
        }
    }

    fn act(&mut self, choice: [u8; 8]) {
        let [what, which, value, more, ..] = choice;
        let index = usize::from(which) % self.programs.len().max(1);
        let program = self.programs.get_mut(index);
        match (what & 7, program) {
            (0, _) => _ = self.connect(value.into()),
            (1, _) => _ = self.answer(value & 3 != 0),
            (2, Some(program)) => program.write(usize::from(u16::from_le_bytes([value, more]))),
            (3, Some(program)) => program.write((usize::from(value) + 1) << 10),
            (4, Some(program)) => program.toggle(),
            (5, Some(program)) => program
                .shut([Shutdown::Read, Shutdown::Write, Shutdown::Both][usize::from(value) % 3]),
            (6, Some(_)) => drop(self.programs.remove(index)),
            (7, _) => match value & 15 {
                0 => self.host.leave(),
                1 | 2 => self.handle.reset_transport(),
                3 => _ = self.host.say(FromHost::Nothing),
                // Answers to what was not asked, or not by this device.
                4 => {
                    let id = u64::from_le_bytes(choice);
                    self.host.say(FromHost::Refused { id });
                }
                5 => {
                    let (_, stream) = host::stream();
                    let id = u64::from_le_bytes(choice);
                    self.host.say(FromHost::Connected { id, stream });
                }
                // Whoever has gone before the device heard of it.
                6 => {
                    let (_, stream) = host::stream();
                    self.offer(0, stream);
                }
                7 => self.obliging = !self.obliging,
                _ => drop(self.handle.stats()),
            },
            _ => {}
        }
    }

    fn lift_limits(&mut self) -> bool {
        true
    }

    fn look(&mut self) {
        while self.obliging && self.answer(true) {}
        self.programs.iter_mut().for_each(Program::look);
        let connections = self.handle.stats().connections as usize;
        assert!(connections <= MOST_CONNECTIONS, "{connections} connections");
    }

    /// Nothing is left of any connection.
    fn check(&mut self) {
        assert_eq!(self.handle.stats().connections, 0);
        self.host.forget();
        self.programs.iter_mut().for_each(Program::expect_end);
    }
}
