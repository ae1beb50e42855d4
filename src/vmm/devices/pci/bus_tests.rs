//! Functions by the ways that a driver has to them.

use super::*;
use crate::devices::{Action, Bus};

const WINDOW: u64 = 0xe000_0000;

/// A function that reads as its number, and keeps what is written last.
struct Numbered(ConfigSpace, u8, Vec<u8>);

impl Device for Numbered {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(self.1 + offset as u8);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Action {
        self.2 = data.to_vec();
        Action::None
    }
}

impl Function for Numbered {
    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.0.write(offset, data);
    }

    fn place(&self) -> Option<u64> {
        self.0.place()
    }
}

/// Both buses of a machine with as many functions.
fn buses(count: u8) -> (Bus, Bus) {
    let functions = (0..count).map(|number| {
        let identity = Identity {
            vendor: 0x1af4,
            device: u16::from(number),
            class: 0,
        };
        let place = WINDOW as u32 + u32::from(number) * BAR_BYTES as u32;
        let space = ConfigSpace::of_function(identity, place);
        Arc::new(Mutex::new(Numbered(space, number, Vec::new()))) as SharedFunction
    });
    let functions = Arc::new(Functions::new(functions.collect()));
    let (mut ports, mut mmio) = (Bus::default(), Bus::default());
    let config = ConfigPorts::new(functions.clone());
    ports
        .insert(0xcf8, PORTS, Arc::new(Mutex::new(config)))
        .unwrap();
    let window = super::Window::new(functions, WINDOW);
    mmio.insert(WINDOW, 0x1000_0000, Arc::new(Mutex::new(window)))
        .unwrap();
    (ports, mmio)
}

fn read<const N: usize>(bus: &Bus, address: u64) -> [u8; N] {
    let mut data = [0; N];
    bus.read(address, &mut data);
    data
}

fn select(ports: &Bus, number: u32, register: u32) {
    let address = 1 << 31 | number << 8 | register;
    let _ = ports.write(0xcf8, &address.to_le_bytes());
}

#[test]
fn configuration_is_reached_by_ports() {
    let (ports, _) = buses(10);
    select(&ports, 0, 8);
    assert_eq!(read(&ports, 0xcfc), [1, 0, 0, 6], "a host bridge");
    for (number, found) in [(8, 0), (9, 1), (15, 7), (16, 8), (17, 9)] {
        select(&ports, number, 0);
        assert_eq!(read(&ports, 0xcfc), [0xf4, 0x1a, found, 0]);
        assert_eq!(read(&ports, 0xcfe), [found, 0]);
        assert_eq!(read(&ports, 0xcfd), [0x1a]);
        assert_eq!(read(&ports, 0xcfe), [0xff; 4], "more than there are ports");
        select(&ports, number, 0xc);
        assert_eq!(
            read::<4>(&ports, 0xcfc)[2],
            0x80,
            "there are others beside it"
        );
    }
    // No such function, no such bus, and not switched on.
    for address in [
        1 << 31 | 18 << 8,
        1 << 31 | 1 << 16 | 8 << 8,
        8 << 8,
        1 << 31 | 1 << 8,
    ] {
        let _ = ports.write(0xcf8, &u32::to_le_bytes(address));
        assert_eq!(read(&ports, 0xcf8), u32::to_le_bytes(address));
        assert_eq!(read(&ports, 0xcfc), [0xff; 4], "{address:#x}");
        let _ = ports.write(0xcfc, &[0; 4]);
    }
    // An address is written as a whole.
    let _ = ports.write(0xcf8, &[0x12, 0x34]);
    let _ = ports.write(0xcf9, &[6]);
    assert_eq!(read(&ports, 0xcf8), u32::to_le_bytes(1 << 31 | 1 << 8));
}

#[test]
fn registers_are_where_they_were_put() {
    let (ports, mmio) = buses(3);
    assert_eq!(read(&mmio, WINDOW), [0xff; 4], "none is switched on");
    for number in 0..3 {
        select(&ports, 8 + number, 4);
        let _ = ports.write(0xcfc, &[2, 0]);
    }
    assert_eq!(read(&mmio, WINDOW + BAR_BYTES + 5), [6; 2]);
    select(&ports, 9, 0x10);
    let _ = ports.write(0xcfc, &0xe900_0000u32.to_le_bytes());
    assert_eq!(read(&mmio, WINDOW + BAR_BYTES), [0xff]);
    assert_eq!(read(&mmio, 0xe900_0002), [3]);
    let _ = ports.write(0xcfc, &0xe000_0000u32.to_le_bytes());
    assert_eq!(
        read(&mmio, WINDOW),
        [0],
        "of two at a place it is the first"
    );
    // Across its end, and outside the window.
    assert_eq!(read(&mmio, WINDOW + 3 * BAR_BYTES - 2), [0xff; 4]);
    let _ = ports.write(0xcfc, &0xf000_0000u32.to_le_bytes());
    assert_eq!(read(&mmio, 0xf000_0000), [0xff]);
}
