//! A driver whose every move the fuzzer chooses: register accesses, rings and buffers.

use kvmlet::devices::Device;
use kvmlet::devices::virtio::{MmioTransport, VirtioDevice};
use kvmlet::memory::{Backing, GuestRam};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

/// Guest RAM: the rings of queue n are at n * 4096, buffers wherever the fuzzer points.
const RAM_BYTES: usize = 1 << 20;
/// How long a worker gets to look at what it was told of.
const PATIENCE: Duration = Duration::from_micros(300);

static RAM: LazyLock<GuestRam> = LazyLock::new(|| {
    GuestRam::allocate(&[(GuestAddress(0), RAM_BYTES)], Backing::default()).expect("1 MiB")
});

/// Sets a device up by the rules, fills its rings with `bytes`, and then makes the accesses that they spell.
pub fn drive(device: Box<dyn VirtioDevice>, bytes: &[u8]) {
    let queues = device.queue_sizes().len() as u32;
    let line = EventFd::new(0).expect("an event");
    let mut transport = MmioTransport::new(device, RAM.clone(), line).expect("events");
    let (memory, moves) = bytes.split_at(bytes.len() / 2);
    for queue in 0..u64::from(queues) {
        let _ = RAM.write_slice(&[0; 4096], GuestAddress(queue * 4096));
        let part = &memory[memory.len().min(queue as usize * 512)..];
        let _ = RAM.write_slice(&part[..part.len().min(4096)], GuestAddress(queue * 4096));
    }
    set_up(&mut transport, queues);
    for step in moves.chunks_exact(6) {
        let offset = u64::from(u16::from_le_bytes([step[0], step[1]])) & 0xffc;
        let value = u32::from_le_bytes([step[2], step[3], step[4], step[5]]);
        if step[1] & 0x80 == 0 {
            let _ = transport.write(offset, &value.to_le_bytes());
        } else {
            transport.read(offset, &mut [0; 8][..usize::from(step[2] & 7) + 1]);
        }
    }
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        std::thread::yield_now();
    }
    // Joins the workers, so that a panic of theirs is this input's.
    let _ = transport.write(0x70, &0u32.to_le_bytes());
}

fn set_up(transport: &mut MmioTransport, queues: u32) {
    let mut write = |register: u64, value: u32| {
        let _ = transport.write(register, &value.to_le_bytes());
    };
    write(0x70, 3);
    for (half, features) in [(0, 1 << 28 | 1 << 29), (1, 1)] {
        write(0x24, half);
        write(0x20, features);
    }
    write(0x70, 11);
    for queue in 0..queues {
        write(0x30, queue);
        write(0x38, 16);
        let base = queue * 4096;
        for (register, place) in [(0x80, base), (0x90, base + 256), (0xa0, base + 512)] {
            write(register, place);
            write(register + 4, 0);
        }
        write(0x44, 1);
    }
    write(0x70, 15);
    for queue in 0..queues {
        write(0x50, queue);
    }
}
