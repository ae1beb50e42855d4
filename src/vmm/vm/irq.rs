//! Interrupt lines: I/O APIC pins as irqfds whose GSI routes follow the redirection table.

use super::error::{Doing, Error};
use crate::arch::x86_64::address_map::IOAPIC_PINS;
use crate::devices::Complaints;
use crate::devices::ioapic::{Message, PINS, Router};
use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_enable_cap,
    kvm_irq_routing_entry,
};
use kvm_ioctls::VmFd;
use kvmlet_sys::event::Event;
use std::sync::Arc;

/// Local APICs in the kernel, the I/O APIC here (api.rst §7.5). Comes after memory and before vCPUs.
pub(super) fn enable_split_irqchip(vm: &VmFd) -> Result<(), Error> {
    let mut cap = kvm_enable_cap {
        cap: KVM_CAP_SPLIT_IRQCHIP,
        ..Default::default()
    };
    cap.args[0] = IOAPIC_PINS as u64;
    vm.enable_cap(&cap)
        .doing("split the interrupt controller (KVM_CAP_SPLIT_IRQCHIP)")
}

/// A device's line to a pin: writing the event raises an edge.
pub(super) fn connect(vm: &VmFd, pin: u32) -> Result<Event, Error> {
    let line = Event::new().map_err(|source| Error::Host {
        what: "an event for an interrupt",
        source,
    })?;
    vm.register_irqfd(line.for_kvm(), pin)
        .doing("connect an interrupt line")?;
    Ok(line)
}

/// Sets KVM's routing table from the I/O APIC's.
pub(super) struct GsiRouter {
    vm: Arc<VmFd>,
    complaints: Complaints,
}

impl GsiRouter {
    pub fn new(vm: Arc<VmFd>) -> Self {
        let complaints = Complaints::new();
        Self { vm, complaints }
    }
}

impl Router for GsiRouter {
    fn route(&mut self, pins: &[Option<Message>; PINS]) {
        let entries: Vec<_> = (0u32..)
            .zip(pins)
            .filter_map(|(gsi, message)| message.map(|message| entry(gsi, message)))
            .collect();
        let set = KvmIrqRouting::from_entries(&entries)
            .map_err(|error| format!("{error:?}"))
            .and_then(|table| {
                self.vm
                    .set_gsi_routing(&table)
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = set {
            let what = format_args!("interrupt routes were not changed: {error}");
            self.complaints.warn(what);
        }
    }
}

fn entry(gsi: u32, message: Message) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi.address_lo = message.address;
    entry.u.msi.data = message.data;
    entry
}
