//! Reads from a virtio entropy device (`mmio=ADDRESS`) and prints the bytes in hex; ends with
//! 1 if two reads are alike or a read is short. Reads a page `more=TIMES` then.
#![no_std]
#![no_main]

use kvmlet_guests::boot_info::BootInfo;
use kvmlet_guests::virtio::{self, Identity};
use kvmlet_guests::{print, println};
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::DeviceType;

kvmlet_guests::program!(run);

const BYTES: usize = 64;

fn run(info: &BootInfo) -> u8 {
    match read_twice(info) {
        Ok([first, second]) if first != second => 0,
        Ok(_) => {
            println!("the same bytes twice");
            1
        }
        Err(error) => {
            println!("rng: {error}");
            1
        }
    }
}

fn read_twice(info: &BootInfo) -> virtio_drivers::Result<[[u8; BYTES]; 2]> {
    let transport = virtio::device(info, DeviceType::EntropySource);
    let mut rng = VirtIORng::<Identity, _>::new(transport)?;
    let mut reads = [[0; BYTES]; 2];
    for bytes in &mut reads {
        let count = rng.request_entropy(bytes)?;
        print!("entropy {count}: ");
        bytes.iter().for_each(|byte| print!("{byte:02x}"));
        print!("\n");
        assert_eq!(count, BYTES, "a short read");
    }
    for _ in 0..info.number("more").unwrap_or(0) {
        rng.request_entropy(&mut [0; 4096])?;
    }
    Ok(reads)
}
