//! Talks over a virtio socket device (`mmio=ADDRESS`) with the `virtio-drivers` crate's driver.
//!
//! Prints `cid=N`, connects to the port `connect=PORT` of the host if that is given and says `hello` there, and listens on
//! port 7. What comes over any connection goes back over it. What begins with `quit` ends the guest, with
//! `connections=N echoed=BYTES` and 0.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::println;
use kvmlet_guests::virtio::{self, Identity};
use virtio_drivers::Error;
use virtio_drivers::device::socket::{
    SocketError, VirtIOSocket, VsockAddr, VsockConnectionManager, VsockEvent, VsockEventType,
};
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::mmio::MmioTransport;

kvmlet_guests::program!(run);

const ECHO_PORT: u32 = 7;
const OWN_PORT: u32 = 4000;
/// VMADDR_CID_HOST.
const HOST: u64 = 2;
/// A receive buffer, with a header in it.
const BUFFER_BYTES: usize = 4096;
const ROOM: u32 = 64 << 10;

type Sockets = VsockConnectionManager<Identity, MmioTransport<'static>, BUFFER_BYTES>;

fn run(info: &BootInfo) -> u8 {
    match echo(info) {
        Ok(()) => 0,
        Err(error) => {
            println!("failed: {error}");
            1
        }
    }
}

/// What waits until the host has room for it.
struct Waiting {
    peer: VsockAddr,
    port: u32,
    data: Vec<u8>,
}

fn echo(info: &BootInfo) -> Result<(), Error> {
    let device = virtio::device(info, DeviceType::Socket);
    let driver = VirtIOSocket::<Identity, _, BUFFER_BYTES>::new(device)?;
    let mut sockets: Sockets = VsockConnectionManager::new_with_capacity(driver, ROOM);
    sockets.listen(ECHO_PORT);
    println!("cid={}", sockets.guest_cid());
    if let Some(port) = info.number("connect") {
        let host = VsockAddr {
            cid: HOST,
            port: port as u32,
        };
        sockets.connect(host, OWN_PORT)?;
    }
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let (mut connections, mut echoed) = (0, 0);
    loop {
        while let Some(next) = waiting.pop_front() {
            match sockets.send(next.peer, next.port, &next.data) {
                Ok(()) => echoed += next.data.len(),
                Err(Error::SocketDeviceError(SocketError::InsufficientBufferSpaceInPeer)) => {
                    waiting.push_front(next);
                    break;
                }
                // Its connection is gone.
                Err(_) => {}
            }
        }
        let Some(event) = sockets.poll()? else {
            core::hint::spin_loop();
            continue;
        };
        let VsockEvent {
            source: peer,
            destination,
            event_type,
            ..
        } = event;
        let port = destination.port;
        match event_type {
            VsockEventType::Connected => {
                connections += 1;
                sockets.send(peer, port, b"hello")?;
            }
            VsockEventType::ConnectionRequest => connections += 1,
            VsockEventType::Received { length } => {
                let mut data = vec![0; length];
                let count = sockets.recv(peer, port, &mut data)?;
                data.truncate(count);
                sockets.update_credit(peer, port)?;
                if data.starts_with(b"quit") {
                    println!("connections={connections} echoed={echoed}");
                    return Ok(());
                }
                waiting.push_back(Waiting { peer, port, data });
            }
            VsockEventType::Disconnected { reason } => {
                println!("port {port}: {reason:?}");
                // A shutdown is agreed to; after a reset there is nothing to agree to.
                let _ = sockets.force_close(peer, port);
            }
            VsockEventType::CreditRequest | VsockEventType::CreditUpdate => {}
        }
    }
}
