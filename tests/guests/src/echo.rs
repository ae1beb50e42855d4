//! A service at the interface that the command line has for kvmlet's init: it sends back what it gets, by TCP at port 80, and by
//! UDP at port 7.

use crate::boot_info::BootInfo;
use crate::cpu;
use crate::wire::{Addresses, Wire};
use alloc::vec;
use alloc::vec::Vec;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use virtio_drivers::transport::mmio::MmioTransport;

/// Connections at a time.
const CONNECTIONS: usize = 8;
/// Assumed where the VMM does not tell, in kHz; nothing here needs exact times.
const TSC_KHZ: u32 = 2_000_000;

/// It.
pub struct Echo {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<SocketHandle>,
    datagrams: SocketHandle,
    khz: u32,
}

impl Echo {
    /// At a device, which nobody else drives; none where there are no addresses.
    pub fn new(info: &BootInfo, device: MmioTransport<'static>) -> Option<Self> {
        let addresses = Addresses::of(info)?;
        let khz = cpu::tsc_khz().unwrap_or(TSC_KHZ);
        let mut wire = Wire::new(device).ok()?;
        let mac = wire.hardware_address();
        let mut interface = Interface::new(Config::new(mac.into()), &mut wire, now(khz));
        interface.update_ip_addrs(|own| {
            let _ = own.push(addresses.own);
        });
        let routes = interface.routes_mut();
        let _ = routes.add_default_ipv4_route(addresses.gateway);
        let mut sockets = SocketSet::new(Vec::new());
        let connection = |_| {
            let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            // Nothing here has a clock that would wake it.
            socket.set_ack_delay(None);
            sockets.add(socket)
        };
        let connections = (0..CONNECTIONS).map(connection).collect();
        let packets = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 8192]);
        let mut datagrams = udp::Socket::new(packets(), packets());
        datagrams.bind(7).ok()?;
        let datagrams = sockets.add(datagrams);
        Some(Self {
            wire,
            interface,
            sockets,
            connections,
            datagrams,
            khz,
        })
    }

    /// Does what there is to do; true if there was something.
    pub fn turn(&mut self) -> bool {
        let at = now(self.khz);
        let polled = self.interface.poll(at, &mut self.wire, &mut self.sockets);
        let mut busy = polled == smoltcp::iface::PollResult::SocketStateChanged;
        for handle in &self.connections {
            busy |= answer(self.sockets.get_mut(*handle));
        }
        let socket = self.sockets.get_mut::<udp::Socket>(self.datagrams);
        let mut data = [0; 2048];
        while let Ok((count, from)) = socket.recv_slice(&mut data) {
            let _ = socket.send_slice(&data[..count], from);
            busy = true;
        }
        busy
    }
}

fn answer(socket: &mut tcp::Socket<'_>) -> bool {
    if !socket.is_open() {
        return socket.listen(80).is_ok();
    }
    if socket.can_recv() && socket.can_send() {
        let mut data = [0; 2048];
        let count = socket.recv_slice(&mut data).unwrap_or(0);
        let _ = socket.send_slice(&data[..count]);
        return true;
    }
    let ends = !socket.may_recv() && socket.may_send();
    if ends {
        socket.close();
    }
    ends
}

fn now(khz: u32) -> Instant {
    Instant::from_micros((cpu::tsc() / u64::from(khz / 1000)) as i64)
}
