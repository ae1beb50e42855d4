//! Gives up a range of a virtio disk (`mmio=ADDRESS`): discards `sectors=N` from `first=N` on, then writes zeroes
//! to as many behind them, in place and with leave to give their space back. virtio 1.2 §5.2.6: one range in
//! each request.
//!
//! Prints `discard status=S`, `zeroes status=S`, `unmap status=S`. The `virtio-drivers` crate's block driver has
//! no such requests; rings and transport are its.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::println;
use kvmlet_guests::virtio::{self, Identity, feature};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::mmio::MmioTransport;
use virtio_drivers::transport::{DeviceType, Transport};

kvmlet_guests::program!(run);

/// Feature bits and request types (§5.2.3, §5.2.6).
const DISCARD: (u64, u32) = (1 << 13, 11);
const WRITE_ZEROES: (u64, u32) = (1 << 14, 13);
/// The flag of a range whose space may be given back.
const UNMAP: u32 = 1;
/// A status byte that no device writes.
const UNANSWERED: u8 = 0xee;

fn run(info: &BootInfo) -> u8 {
    let mut transport = virtio::device(info, DeviceType::Block);
    let wanted = feature::VERSION_1 | DISCARD.0 | WRITE_ZEROES.0;
    let features = virtio::negotiate(&mut transport, wanted);
    assert!(features == wanted, "the device offers {features:#x} only");
    let mut queue = virtio::polled_queue(&mut transport, 0, features);
    transport.finish_init();
    let (Some(first), Some(sectors)) = (info.number("first"), info.number("sectors")) else {
        panic!("command line: first=N and sectors=N are missing")
    };
    for (name, kind, flags) in [
        ("discard", DISCARD.1, 0),
        ("zeroes", WRITE_ZEROES.1, 0),
        ("unmap", WRITE_ZEROES.1, UNMAP),
    ] {
        let place = match name {
            "discard" => first,
            "zeroes" => first + sectors,
            _ => first + 2 * sectors,
        };
        let status = request(
            &mut queue,
            &mut transport,
            kind,
            (place, sectors as u32, flags),
        );
        println!("{name} status={status}");
    }
    0
}

/// Sends one request and waits for its status.
fn request(
    queue: &mut VirtQueue<Identity, 16>,
    transport: &mut MmioTransport<'static>,
    kind: u32,
    (first, sectors, flags): (u64, u32, u32),
) -> u8 {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    let mut range = [0; 16];
    range[..8].copy_from_slice(&first.to_le_bytes());
    range[8..12].copy_from_slice(&sectors.to_le_bytes());
    range[12..].copy_from_slice(&flags.to_le_bytes());
    let mut status = [UNANSWERED];
    match queue.add_notify_wait_pop(&[&header, &range], &mut [&mut status], transport) {
        Ok(_) => status[0],
        Err(error) => panic!("a request failed: {error}"),
    }
}
