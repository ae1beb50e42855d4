//! Gives commands to a virtio network device (`mmio=ADDRESS`) with two queue pairs by its control queue (virtio 1.2
//! §5.1.6.5): use both pairs, use one, use both again, take no
//! offloads; then resets it and does it all once more.
//!
//! Prints `commands=N` and ends with 0 if the device agreed to all N of them. The `virtio-drivers` crate's driver
//! has no such queue; ring and transport are its.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::println;
use kvmlet_guests::virtio::{self, feature};
use virtio_drivers::transport::{DeviceType, Transport};

kvmlet_guests::program!(run);

/// Feature bits (§5.1.3).
const GUEST_CSUM: u64 = 1 << 1;
const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
const CTRL_VQ: u64 = 1 << 17;
const MQ: u64 = 1 << 22;
/// Behind both queues of both pairs.
const CONTROL_QUEUE: u16 = 4;
/// Class, command and argument.
const COMMANDS: [&[u8]; 4] = [
    &[4, 0, 2, 0],
    &[4, 0, 1, 0],
    &[4, 0, 2, 0],
    &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
];
const OK: u8 = 0;
/// An answer that no device writes.
const UNANSWERED: u8 = 0xee;

fn run(info: &BootInfo) -> u8 {
    let mut transport = virtio::device(info, DeviceType::Network);
    let wanted = feature::VERSION_1 | GUEST_CSUM | CTRL_GUEST_OFFLOADS | CTRL_VQ | MQ;
    let mut obeyed = 0;
    for _ in 0..2 {
        let features = virtio::negotiate(&mut transport, wanted);
        assert!(features == wanted, "the device offers {features:#x} only");
        let mut queue = virtio::polled_queue::<16>(&mut transport, CONTROL_QUEUE, features);
        transport.finish_init();
        for command in COMMANDS {
            let mut answer = [UNANSWERED];
            let given = queue.add_notify_wait_pop(&[command], &mut [&mut answer], &mut transport);
            assert!(given.is_ok() && answer[0] == OK, "{command:?}: {answer:?}");
            obeyed += 1;
        }
    }
    println!("commands={obeyed}");
    0
}
