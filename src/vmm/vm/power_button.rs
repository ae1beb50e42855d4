//! The machine's power button: how a guest is asked to end.
//!
//! It is an edge of a pin of the I/O APIC. ACPI tables tell stock kernels so (a generic event device, ACPI 6.5 §5.6.9,
//! and a control method power button, §4.8.2.2.1.2); kvmlet's own kernels have a driver that knows the pin.

use super::irq::{self, GsiRouter};
use crate::arch::x86_64::address_map::POWER_BUTTON_IRQ;
use crate::devices::ioapic::Ioapic;
use kvm_ioctls::VmFd;
use kvmlet_sys::thread::lock;
use std::sync::{Arc, Mutex};

pub(super) struct PowerButton {
    ioapic: Arc<Mutex<Ioapic<GsiRouter>>>,
    fd: Arc<VmFd>,
}

impl PowerButton {
    pub fn new(ioapic: Arc<Mutex<Ioapic<GsiRouter>>>, fd: Arc<VmFd>) -> Self {
        Self { ioapic, fd }
    }

    /// The I/O APIC that it is connected to.
    pub fn ioapic(&self) -> &Mutex<Ioapic<GsiRouter>> {
        &self.ioapic
    }

    /// Presses it. False if no driver of the guest has enabled its interrupt: then nobody hears it.
    pub fn press(&self) -> bool {
        let message = lock(&self.ioapic).message(POWER_BUTTON_IRQ as usize);
        let Some(message) = message else {
            return false;
        };
        irq::send(&self.fd, message).unwrap_or_else(|error| {
            log::debug!("the power button was not pressed: {error}");
            false
        })
    }
}
