//! Echoes Ethernet frames over a virtio network device (`mmio=ADDRESS`, or `bus=pci`: the first there is) with the
//! `virtio-drivers` crate's driver, which notifies once per frame.
//!
//! Frames of type 0x88b5 go back to their sender, others are dropped. Prints `mac=...` when it
//! is ready; a frame whose payload starts with `quit` ends it with `echoed=N bytes=B` and 0.
//! Send fewer than 60000 frames: the driver's event index comparison is wrong once the index
//! wraps around.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::virtio::{self, Identity};
use kvmlet_guests::{ethernet, pci, println};
use virtio_drivers::Error;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::{DeviceType, Transport};

kvmlet_guests::program!(run);

const QUEUE_SIZE: usize = 64;
/// Receive buffers that wait at the device.
const BUFFERS: usize = 32;
/// A virtio_net_hdr and a frame.
const BUFFER_BYTES: usize = 2048;

/// Where registers of functions are put: far from where they are.
const PLACES: u32 = 0xe800_0000;
const DISTANCE: u32 = 0x1_0000;

fn run(info: &BootInfo) -> u8 {
    let echoed = match info.option("bus") {
        Some("pci") => echo(function()),
        _ => echo(virtio::device(info, DeviceType::Network)),
    };
    match echoed {
        Ok(()) => 0,
        Err(error) => {
            println!("failed: {error}");
            1
        }
    }
}

fn function() -> impl Transport {
    let places = (PLACES..).step_by(DISTANCE as usize);
    let functions = pci::functions().zip(places);
    let mut transports = functions.map(|(function, place)| pci::transport(function, place));
    match transports.find(|it| it.device_type() == DeviceType::Network) {
        Some(transport) => transport,
        None => panic!("no interface on the bus"),
    }
}

fn echo(transport: impl Transport) -> Result<(), Error> {
    let mut net = VirtIONetRaw::<Identity, _, QUEUE_SIZE>::new(transport)?;
    net.disable_interrupts();
    let own = net.mac_address();
    let mut buffers = vec![[0; BUFFER_BYTES]; BUFFERS];
    let mut tokens = [0; BUFFERS];
    for (token, buffer) in tokens.iter_mut().zip(&mut buffers) {
        // SAFETY: the buffer stays untouched until the device has used it.
        *token = unsafe { net.receive_begin(buffer) }?;
    }
    let [a, b, c, d, e, f] = own;
    println!("mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    let (mut echoed, mut bytes) = (0, 0);
    loop {
        let Some(token) = net.poll_receive() else {
            core::hint::spin_loop();
            continue;
        };
        let Some(index) = tokens.iter().position(|known| *known == token) else {
            panic!("the device used descriptor {token}, which no buffer has")
        };
        // SAFETY: the buffer of this token.
        let (header, length) = unsafe { net.receive_complete(token, &mut buffers[index]) }?;
        let frame = &mut buffers[index][header..header + length];
        if ethernet::is_quit(frame) {
            println!("echoed={echoed} bytes={bytes}");
            return Ok(());
        }
        if ethernet::is_ours(frame) {
            ethernet::turn_around(frame, own);
            net.send(frame)?;
            echoed += 1;
            bytes += length;
        }
        // SAFETY: as above.
        tokens[index] = unsafe { net.receive_begin(&mut buffers[index]) }?;
    }
}
