//! How a device calls its driver.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// InterruptStatus bits (virtio 1.2 §4.2.2).
const USED_BUFFER: u32 = 1;
const CONFIG_CHANGE: u32 = 2;

/// A device's interrupt line with the status that says why it was raised. Shared by the transport, which
/// reads and acknowledges, and the device's worker, which raises.
#[derive(Debug)]
pub struct Interrupt {
    line: EventFd,
    status: AtomicU32,
    generation: AtomicU32,
    needs_reset: AtomicBool,
    raised: AtomicU64,
}

impl Interrupt {
    /// An interrupt that raises the given line.
    pub fn new(line: EventFd) -> Self {
        Self {
            line,
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            raised: AtomicU64::new(0),
        }
    }

    /// The device has used buffers.
    pub fn used_buffers(&self) {
        self.raise(USED_BUFFER);
    }

    /// The device's configuration space has changed (§2.5): readers see a new generation.
    pub fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(CONFIG_CHANGE);
    }

    /// The device cannot go on before it is reset (§2.1.2, DEVICE_NEEDS_RESET). Says so once in the log.
    pub fn needs_reset(&self, device: &str, why: &dyn std::fmt::Display) {
        if !self.needs_reset.swap(true, Ordering::AcqRel) {
            log::warn!("{device} needs a reset by its driver: {why}");
            self.raise(CONFIG_CHANGE);
        }
    }

    /// How often the line was raised.
    pub fn raised(&self) -> u64 {
        self.raised.load(Ordering::Relaxed)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    pub(super) fn status(&self) -> u32 {
        self.status.load(Ordering::Acquire)
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::AcqRel);
    }

    pub(super) fn reset(&self) {
        self.status.store(0, Ordering::Release);
        self.needs_reset.store(false, Ordering::Release);
    }

    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::AcqRel);
        self.raised.fetch_add(1, Ordering::Relaxed);
        // The line is an eventfd: a full counter still raises it.
        let _ = self.line.write(1);
    }
}
