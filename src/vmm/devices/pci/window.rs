//! The addresses in which functions have their registers, wherever a driver has put them.

use super::{BAR_BYTES, Functions, SharedFunction};
use crate::devices::{Action, Device};
use kvmlet_sys::thread::lock;
use std::sync::Arc;

/// The window; offsets count from its first address.
pub struct Window {
    functions: Arc<Functions>,
    start: u64,
}

impl Window {
    /// The window to the functions of a bus, from that address on.
    pub fn new(functions: Arc<Functions>, start: u64) -> Self {
        Self { functions, start }
    }

    /// The function that has all of an access, and its offset there. Of two at one place it is the first.
    fn find(&self, offset: u64, bytes: usize) -> Option<(&SharedFunction, u64)> {
        let address = self.start.checked_add(offset)?;
        self.functions.functions.iter().find_map(|function| {
            let inner = address.checked_sub(lock(function).place()?)?;
            (inner + bytes as u64 <= BAR_BYTES).then_some((function, inner))
        })
    }
}

impl Device for Window {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match self.find(offset, data.len()) {
            Some((function, inner)) => lock(function).read(inner, data),
            None => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        match self.find(offset, data.len()) {
            Some((function, inner)) => lock(function).write(inner, data),
            None => Action::None,
        }
    }
}
