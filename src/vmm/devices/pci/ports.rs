//! The way to configuration spaces through ports (PCI Local Bus 3.0 §3.2.2.3.2): an address is written to one, and what is
//! there is read and written through the other.

use super::Functions;
use crate::devices::{Action, Device};
use std::sync::Arc;

/// How many ports there are: four for the address, four for the data.
pub const PORTS: u64 = 8;

const DATA: u64 = 4;
/// The address leads to a configuration space.
const ENABLE: u32 = 1 << 31;

/// The ports.
pub struct ConfigPorts {
    functions: Arc<Functions>,
    address: u32,
}

impl ConfigPorts {
    /// The ports to the functions of a bus, which is number 0.
    pub fn new(functions: Arc<Functions>) -> Self {
        let address = 0;
        Self { functions, address }
    }

    /// What was last written as an address.
    pub fn address(&self) -> u32 {
        self.address
    }

    /// Writes an address.
    pub fn set_address(&mut self, address: u32) {
        self.address = address & !3;
    }

    /// The function and the offset in its space that an access to data is about.
    fn target(&self, offset: u64, bytes: usize) -> Option<(usize, usize)> {
        let inner = usize::try_from(offset.checked_sub(DATA)?).ok()?;
        let bus = self.address >> 16 & 0xff;
        (self.address & ENABLE != 0 && bus == 0 && inner + bytes <= 4).then(|| {
            let [register, number, ..] = self.address.to_le_bytes();
            (number.into(), usize::from(register & !3) + inner)
        })
    }
}

impl Device for ConfigPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match (offset, data.len()) {
            (0, 4) => data.copy_from_slice(&self.address.to_le_bytes()),
            (_, bytes) => match self.target(offset, bytes) {
                Some((number, register)) => self.functions.read_config(number, register, data),
                None => data.fill(0xff),
            },
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        match (offset, <[u8; 4]>::try_from(data)) {
            (0, Ok(address)) => self.set_address(u32::from_le_bytes(address)),
            _ => {
                if let Some((number, register)) = self.target(offset, data.len()) {
                    self.functions.write_config(number, register, data);
                }
            }
        }
        Action::None
    }
}
