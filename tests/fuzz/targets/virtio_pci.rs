//! A PCI bus with two functions, through its ports and its window: accesses of any width anywhere, in any order, and the
//! regular ones that switch functions on, move them, and set up messages. What holds after each is looked at.
#![no_main]

mod driver;

use driver::{devices, ear, ram};
use kvmlet_vmm::devices::Device;
use kvmlet_vmm::devices::pci::{
    BAR_BYTES, ConfigPorts, Functions, Message, MessageLine, SharedFunction, Window,
};
use kvmlet_vmm::devices::virtio::{PciTransport, VirtioDevice};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, Mutex};

const START: u64 = 0xe000_0000;
const VENDOR: u32 = 0x1af4;

/// A line that knows whether it leads anywhere.
struct Line(Mutex<Option<Message>>);

impl MessageLine for Line {
    fn route(&self, message: Option<Message>) {
        *self.0.lock().expect("no panic") = message;
    }

    fn signal(&self) {
        assert!(
            self.0.lock().expect("no panic").is_some(),
            "a message to nowhere"
        );
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((header, moves)) = driver::split(bytes) else {
        return;
    };
    ear::listen();
    let devices: [Box<dyn VirtioDevice>; 2] =
        [devices::rng::rng(header).0, devices::block::block(header).0];
    let ram = ram::empty();
    let functions = (0u32..).zip(devices).map(|(number, device)| {
        let lines = (0..PciTransport::lines(&*device))
            .map(|_| Box::new(Line(Mutex::new(None))) as Box<dyn MessageLine>);
        let place = START as u32 + number * BAR_BYTES as u32;
        let function = PciTransport::new(device, ram.clone(), lines.collect(), place);
        Arc::new(Mutex::new(function.expect("events"))) as SharedFunction
    });
    let functions = Arc::new(Functions::new(functions.collect()));
    let mut ports = ConfigPorts::new(functions.clone());
    let mut window = Window::new(functions, START);
    for step in moves.chunks_exact(12) {
        let (how, place, value) = (
            step[0],
            u32::from_le_bytes([step[1], step[2], step[3], 0]),
            &step[4..],
        );
        let width = usize::from(how >> 3 & 7) + 1;
        let mut data = [0xa5; 8];
        let data = &mut data[..width];
        // The functions, most often, and what is beside them.
        let number = 8 + (place >> 8 & if how & 0x80 == 0 { 1 } else { 0xff });
        select(&mut ports, number, place & 0xfc);
        match how & 7 {
            0 => ports.read(u64::from(place & 7), data),
            1 => {
                let _ = ports.write(u64::from(place & 7), &value[..width]);
            }
            2 => window.read(place.into(), data),
            3 => {
                let _ = window.write(place.into(), &value[..width]);
            }
            4 => {
                let _ = ports.write(4, &value[..4]);
            }
            5 => {
                select(&mut ports, number, 4);
                let _ = ports.write(4, &[value[0], value[1]]);
            }
            6 => {
                // The word that switches messages, behind all other capabilities.
                select(&mut ports, number, 0x98);
                let _ = ports.write(6, &[value[0], value[1] | 0x80]);
            }
            _ => {
                let at = u64::from(number & 1) * BAR_BYTES + 0x4000 + u64::from(place & 0x3c);
                let _ = window.write(at, &value[..4]);
            }
        }
        for (number, device) in [(8, 0x1044), (9, 0x1042)] {
            select(&mut ports, number, 0);
            assert_eq!(read(&mut ports), device << 16 | VENDOR);
            select(&mut ports, number, 0x10);
            assert_eq!(
                u64::from(read(&mut ports)) % BAR_BYTES,
                0,
                "a place of its size"
            );
            select(&mut ports, number, 4);
            assert_eq!(
                read(&mut ports),
                read(&mut ports) & 0x0010_0406,
                "command and status"
            );
        }
    }
});

fn select(ports: &mut ConfigPorts, number: u32, register: u32) {
    let address = 1 << 31 | number << 8 | register;
    let _ = ports.write(0, &address.to_le_bytes());
}

fn read(ports: &mut ConfigPorts) -> u32 {
    let mut data = [0; 4];
    ports.read(4, &mut data);
    u32::from_le_bytes(data)
}
