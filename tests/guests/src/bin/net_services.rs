//! Serves TCP and UDP over a virtio network device (`mmio=ADDRESS`) with the `smoltcp` stack, at the address that
//! the command line has for kvmlet's init (`kvmlet.net=`), and asks for a name.
//!
//! Port 80 answers every HTTP request with the client's address, and `quit` ends the program with 0; UDP port 53
//! answers with the client's address. Prints `serving` when it is ready, and `name.test=ADDRESS` whenever the
//! answer to that question changes. With `mib=N` on the command line, TCP port 81 sends that much and closes, and 82 takes what
//! there is until its peer closes, and closes then.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::virtio;
use kvmlet_guests::wire::{Addresses, Wire};
use kvmlet_guests::{cpu, println};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{dns, tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::DnsQueryType;
use virtio_drivers::transport::DeviceType;

kvmlet_guests::program!(run);

/// Connections at a time: more than kvmlet proxies.
const CONNECTIONS: usize = 300;
/// Between two questions, in microseconds.
const PAUSE: i64 = 200_000;
/// Assumed where the VMM does not tell, in kHz; nothing here needs exact times.
const TSC_KHZ: u32 = 2_000_000;

fn now(khz: u32) -> Instant {
    Instant::from_micros((cpu::tsc() / u64::from(khz / 1000)) as i64)
}

fn run(info: &BootInfo) -> u8 {
    let Some(addresses) = Addresses::of(info) else {
        println!("failed: no addresses in {}", info.command_line);
        return 1;
    };
    let khz = cpu::tsc_khz().unwrap_or(TSC_KHZ);
    let device = virtio::device(info, DeviceType::Network);
    let mut wire = match Wire::new(device) {
        Ok(wire) => wire,
        Err(error) => {
            println!("failed: {error}");
            return 1;
        }
    };
    let mac = wire.hardware_address();
    let mut interface = Interface::new(Config::new(mac.into()), &mut wire, now(khz));
    interface.update_ip_addrs(|own| {
        let _ = own.push(addresses.own);
    });
    let _ = interface
        .routes_mut()
        .add_default_ipv4_route(addresses.gateway);
    let mut sockets = SocketSet::new(Vec::new());
    let mib = info.number("mib");
    // A stack looks at all of its connections in each turn.
    let count = mib.map_or(CONNECTIONS, |_| 1);
    let mut bulk = mib.map_or(Vec::new(), |mib| Bulk::both(mib << 20, &mut sockets));
    let connections: Vec<SocketHandle> = (0..count)
        .map(|_| {
            let buffer = || tcp::SocketBuffer::new(vec![0; 1024]);
            sockets.add(tcp::Socket::new(buffer(), buffer()))
        })
        .collect();
    let packets = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 8192]);
    let mut datagrams = udp::Socket::new(packets(), packets());
    if let Err(error) = datagrams.bind(53) {
        panic!("bind: {error:?}");
    }
    let datagrams = sockets.add(datagrams);
    let names = sockets.add(dns::Socket::new(&addresses.servers, vec![]));
    let mut names = Names::new(names);
    println!("serving");
    loop {
        let at = now(khz);
        interface.poll(at, &mut wire, &mut sockets);
        for handle in &connections {
            if serve(sockets.get_mut(*handle)) {
                return 0;
            }
        }
        for bulk in &mut bulk {
            bulk.go_on(&mut sockets);
        }
        let socket = sockets.get_mut::<udp::Socket>(datagrams);
        while let Ok((_, from)) = socket.recv().map(|(data, from)| (data.len(), from)) {
            let _ = socket.send_slice(format!("{}", from.endpoint.addr).as_bytes(), from);
        }
        names.go_on(&mut interface, &mut sockets, at);
    }
}

/// Answers a request; true if the program is to end.
fn serve(socket: &mut tcp::Socket) -> bool {
    if !socket.is_open() {
        if let Err(error) = socket.listen(80) {
            panic!("listen: {error:?}");
        }
        return false;
    }
    if socket.can_recv() {
        let peer = socket.remote_endpoint();
        let (asked, quit) = socket
            .recv(|data| {
                let asked = data.windows(4).any(|end| end == b"\r\n\r\n");
                (data.len(), (asked, data.starts_with(b"quit")))
            })
            .unwrap_or_default();
        if quit {
            return true;
        }
        if let (true, Some(peer)) = (asked, peer) {
            let body = format!("{}\n", peer.addr);
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = socket.send_slice((head + &body).as_bytes());
            socket.close();
        }
    } else if socket.state() == tcp::State::CloseWait {
        socket.close();
    }
    false
}

/// A port that as much as can be goes through, one connection at a time.
struct Bulk {
    socket: SocketHandle,
    port: u16,
    /// What is sent to each.
    bytes: u64,
    left: u64,
}

impl Bulk {
    const SENDS: u16 = 81;
    const TAKES: u16 = 82;
    const BUFFER_BYTES: usize = 256 << 10;

    fn both(bytes: u64, sockets: &mut SocketSet<'_>) -> Vec<Self> {
        let one = |port| {
            let buffer = || tcp::SocketBuffer::new(vec![0; Self::BUFFER_BYTES]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_ack_delay(None);
            let socket = sockets.add(socket);
            let left = bytes;
            Self {
                socket,
                port,
                bytes,
                left,
            }
        };
        [Self::SENDS, Self::TAKES].map(one).into()
    }

    fn go_on(&mut self, sockets: &mut SocketSet<'_>) {
        let socket = sockets.get_mut::<tcp::Socket>(self.socket);
        if !socket.is_open() {
            if let Err(error) = socket.listen(self.port) {
                panic!("listen: {error:?}");
            }
            self.left = self.bytes;
        }
        if self.port == Self::SENDS && socket.can_send() && self.left > 0 {
            let left = self.left;
            let sent = socket.send(|room| {
                let count = (room.len() as u64).min(left) as usize;
                (count, count as u64)
            });
            self.left -= sent.unwrap_or_default();
            if self.left == 0 {
                socket.close();
            }
        }
        if socket.can_recv() {
            let _ = socket.recv(|data| (data.len(), ()));
        } else if socket.state() == tcp::State::CloseWait {
            socket.close();
        }
    }
}

/// One question, asked again and again.
struct Names {
    socket: SocketHandle,
    query: Option<dns::QueryHandle>,
    next: Instant,
    last: String,
}

impl Names {
    fn new(socket: SocketHandle) -> Self {
        Self {
            socket,
            query: None,
            next: Instant::ZERO,
            last: String::new(),
        }
    }

    fn go_on(&mut self, interface: &mut Interface, sockets: &mut SocketSet, at: Instant) {
        let socket = sockets.get_mut::<dns::Socket>(self.socket);
        let Some(query) = self.query else {
            if at >= self.next {
                let context = interface.context();
                self.query = socket
                    .start_query(context, "name.test", DnsQueryType::A)
                    .ok();
            }
            return;
        };
        let answer = match socket.get_query_result(query) {
            Err(dns::GetQueryResultError::Pending) => return,
            Err(dns::GetQueryResultError::Failed) => "failed".to_string(),
            Ok(found) => found.first().map_or("nothing".into(), ToString::to_string),
        };
        self.query = None;
        self.next = at + smoltcp::time::Duration::from_micros(PAUSE as u64);
        if answer != self.last {
            println!("name.test={answer}");
            self.last = answer;
        }
    }
}
