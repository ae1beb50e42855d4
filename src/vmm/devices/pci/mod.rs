//! A PCI bus (PCI Local Bus Specification 3.0): functions, whose configuration a driver reads and writes through two ports,
//! and a window of addresses, in which each function's registers are where the driver has put them.
//!
//! There is one bus, with a host bridge and functions that interrupt by messages (MSI-X) only: no lines, no bridges, and
//! nothing is plugged in or out.

mod config;
mod msix;
mod ports;
mod window;

pub use config::{BAR_BYTES, ConfigSpace, Identity};
pub use msix::{Message, MessageLine, Msix, VectorState};
pub use ports::{ConfigPorts, PORTS};
pub use window::Window;

#[cfg(test)]
pub(crate) use msix::tests as tests_lines;

use super::Device;
use kvmlet_sys::thread::lock;
use std::sync::{Arc, Mutex};

/// A function of a device. As a [`Device`] it is its registers: offsets count from where they begin.
pub trait Function: Device {
    /// Fills `data` from the configuration space; `offset` and its end are within [256 bytes](ConfigSpace).
    fn read_config(&mut self, offset: usize, data: &mut [u8]);

    /// Takes a write to the configuration space, likewise.
    fn write_config(&mut self, offset: usize, data: &[u8]);

    /// Where its [registers](BAR_BYTES) are, unless a driver has switched them off.
    fn place(&self) -> Option<u64>;
}

/// What a driver has made of a function, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionState {
    /// Its configuration space.
    pub config: Vec<u8>,
    /// Its table of messages.
    pub table: Vec<VectorState>,
    /// By which vector each thing of its device interrupts: changes first, then queues.
    pub vectors: Vec<u16>,
}

/// A function on the bus.
pub type SharedFunction = Arc<Mutex<dyn Function>>;

/// Numbers of functions on a bus: 32 devices with eight each.
const NUMBERS: usize = 256;
/// Functions come behind the host bridge's device, in the order of their numbers, in which guests name them.
const FIRST: usize = 8;
/// As many functions as there can be beside the host bridge.
pub const MOST_FUNCTIONS: usize = NUMBERS - FIRST;

/// The functions on a bus, constant once it is made.
pub struct Functions {
    bridge: ConfigSpace,
    functions: Vec<SharedFunction>,
}

impl Functions {
    /// A bus with these functions; at most [`MOST_FUNCTIONS`].
    pub fn new(functions: Vec<SharedFunction>) -> Self {
        Self {
            bridge: ConfigSpace::of_bridge(),
            functions,
        }
    }

    /// Reads a function's configuration space: all ones where there is no function.
    fn read_config(&self, number: usize, offset: usize, data: &mut [u8]) {
        match (number, self.at(number)) {
            (0, _) => self.bridge.read(offset, data),
            (_, Some(function)) => lock(function).read_config(offset, data),
            (_, None) => data.fill(0xff),
        }
    }

    fn write_config(&self, number: usize, offset: usize, data: &[u8]) {
        if let Some(function) = self.at(number) {
            lock(function).write_config(offset, data);
        }
    }

    fn at(&self, number: usize) -> Option<&SharedFunction> {
        self.functions.get(number.checked_sub(FIRST)?)
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
