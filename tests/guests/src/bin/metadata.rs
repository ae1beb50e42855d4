//! Asks a metadata service, again and again, by the first network device that the command line lists for Linux: for
//! `/name` at `at=ADDRESS` (169.254.169.254 if not said). With `token=1` on the command line it asks for one first, and for the
//! name with it.
//!
//! Prints `told=STATUS BODY` whenever that changes, and first `untold=STATUS` of a request without a token, if there is one.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::str::FromStr;

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::virtio;
use kvmlet_guests::wire::Wire;
use kvmlet_guests::{cpu, println};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpCidr, Ipv4Address};
use virtio_drivers::transport::DeviceType;

kvmlet_guests::program!(run);

/// Assumed where the VMM does not tell, in kHz; nothing here needs exact times.
const TSC_KHZ: u32 = 2_000_000;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);
/// When a connection is given up.
const PATIENCE: Duration = Duration::from_secs(3);

struct Guest {
    khz: u32,
    service: Ipv4Address,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    port: u16,
}

fn run(info: &BootInfo) -> u8 {
    let service = info.option("at").unwrap_or("169.254.169.254");
    let Ok(service) = Ipv4Address::from_str(service) else {
        println!("failed: at={service} is no address");
        return 1;
    };
    let (address, _) = virtio::listed(info, DeviceType::Network);
    let mut wire = match Wire::new(virtio::device_at(address, DeviceType::Network)) {
        Ok(wire) => wire,
        Err(error) => {
            println!("failed: {error}");
            return 1;
        }
    };
    let khz = cpu::tsc_khz().unwrap_or(TSC_KHZ);
    let mac = wire.hardware_address();
    let mut interface = Interface::new(Config::new(mac.into()), &mut wire, now(khz));
    interface.update_ip_addrs(|own| {
        let own = own.push(IpCidr::new(Ipv4Address::new(169, 254, 7, 7).into(), 16));
        assert!(own.is_ok(), "there is room for an address");
    });
    let buffer = || SocketBuffer::new(vec![0; 4096]);
    let mut sockets = SocketSet::new(Vec::new());
    let socket = sockets.add(Socket::new(buffer(), buffer()));
    let mut guest = Guest {
        khz,
        service,
        wire,
        interface,
        sockets,
        socket,
        port: 1024,
    };
    let has_token = info.option("token").is_some();
    let mut last = String::new();
    if has_token {
        let (status, _) = guest.ask("GET /name HTTP/1.1\r\n\r\n");
        println!("untold={status}");
    }
    loop {
        let mut fields = String::new();
        if has_token {
            let field = "X-metadata-token-ttl-seconds: 60";
            let request = format!("PUT /latest/api/token HTTP/1.1\r\n{field}\r\n\r\n");
            let (_, token) = guest.ask(&request);
            fields = format!("X-metadata-token: {token}\r\n");
        }
        let request = format!("GET /name HTTP/1.1\r\n{fields}\r\n");
        let (status, body) = guest.ask(&request);
        let told = format!("{status} {body}");
        if told != last {
            println!("told={told}");
            last = told;
        }
        guest.pause();
    }
}

fn now(khz: u32) -> Instant {
    Instant::from_micros((cpu::tsc() / u64::from(khz / 1000)) as i64)
}

/// The status and the body of an answer, if all of it has come.
fn answer(text: &str) -> Option<(u16, &str)> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("Content-Length: "))?;
    (body.len() == length.parse::<usize>().ok()?).then_some((status, body))
}

impl Guest {
    fn poll(&mut self) -> Instant {
        let at = now(self.khz);
        self.interface.poll(at, &mut self.wire, &mut self.sockets);
        at
    }

    fn pause(&mut self) {
        let end = now(self.khz) + PAUSE;
        while self.poll() < end {}
    }

    /// Asks until there is an answer.
    fn ask(&mut self, request: &str) -> (u16, String) {
        loop {
            if let Some(answer) = self.try_once(request) {
                return answer;
            }
            self.sockets.get_mut::<Socket>(self.socket).abort();
            self.pause();
        }
    }

    fn try_once(&mut self, request: &str) -> Option<(u16, String)> {
        let end = now(self.khz) + PATIENCE;
        let socket = self.sockets.get_mut::<Socket>(self.socket);
        if socket.state() != State::Established {
            self.port = self.port.wrapping_add(1).max(1024);
            let to = (self.service, 80);
            socket
                .connect(self.interface.context(), to, self.port)
                .ok()?;
        }
        let mut is_said = false;
        let mut heard = Vec::new();
        while self.poll() < end {
            let socket = self.sockets.get_mut::<Socket>(self.socket);
            if !socket.is_open() {
                return None;
            }
            if !is_said && socket.can_send() {
                is_said = socket.send_slice(request.as_bytes()).is_ok();
            }
            if socket.can_recv() {
                let _ = socket.recv(|bytes| {
                    heard.extend_from_slice(bytes);
                    (bytes.len(), ())
                });
                if let Some((status, body)) = answer(core::str::from_utf8(&heard).ok()?) {
                    return Some((status, body.into()));
                }
            }
        }
        None
    }
}
