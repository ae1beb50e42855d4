//! Interrupt lines: I/O APIC pins, and messages of PCI functions, as irqfds whose GSI routes follow the redirection table and the functions' own.

use super::error::{Doing, Error};
use crate::arch::x86_64::address_map::IOAPIC_PINS;
use crate::devices::Complaints;
use crate::devices::ioapic::{Message, PINS, Router};
use crate::devices::pci::{self, MessageLine};
use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_enable_cap,
    kvm_irq_routing_entry, kvm_msi,
};
use kvm_ioctls::VmFd;
use kvmlet_sys::event::Event;
use kvmlet_sys::thread::lock;
use std::sync::{Arc, Mutex};

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

/// Sends a message at once. False if no local APIC of the guest's takes it.
pub(super) fn send(vm: &VmFd, message: Message) -> Result<bool, kvm_ioctls::Error> {
    let message = kvm_msi {
        address_lo: message.address,
        data: message.data,
        ..Default::default()
    };
    vm.signal_msi(message).map(|taken| taken > 0)
}

/// A line to messages of a function's: writing the event sends what it is [routed](MessageLine::route) to.
pub(super) fn connect_message(vm: &VmFd, routes: &Arc<Routes>) -> Result<MsiLine, Error> {
    let number = routes.add_message().ok_or(Error::MessageLimit {
        limit: MOST_MESSAGES,
    })?;
    let line = connect(vm, (PINS + number) as u32)?;
    let routes = routes.clone();
    Ok(MsiLine {
        line,
        number,
        routes,
    })
}

/// Messages of functions, beside pins: as many as the structures of KVM's table that kvm-bindings makes have room for.
const MOST_MESSAGES: usize = 1000;

/// KVM's routing table: pins of the I/O APIC come first, and messages behind them.
pub(super) struct Routes {
    vm: Arc<VmFd>,
    table: Mutex<Table>,
    complaints: Complaints,
}

struct Table {
    pins: [Option<Message>; PINS],
    messages: Vec<Option<pci::Message>>,
}

impl Routes {
    pub fn new(vm: Arc<VmFd>) -> Arc<Self> {
        Arc::new(Self {
            vm,
            table: Mutex::new(Table {
                pins: [None; PINS],
                messages: Vec::new(),
            }),
            complaints: Complaints::new(),
        })
    }

    /// The number of one more message, if there is room.
    fn add_message(&self) -> Option<usize> {
        let mut table = lock(&self.table);
        let number = table.messages.len();
        (number < MOST_MESSAGES).then(|| {
            table.messages.push(None);
            number
        })
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        let mut table = lock(&self.table);
        change(&mut table);
        let pins = table
            .pins
            .iter()
            .map(|pin| pin.map(|Message { address, data }| (u64::from(address), data)));
        let messages = table
            .messages
            .iter()
            .map(|message| message.map(|pci::Message { address, data }| (address, data)));
        let entries: Vec<_> = (0u32..)
            .zip(pins.chain(messages))
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

/// The I/O APIC's way to the table.
pub(super) struct GsiRouter(pub Arc<Routes>);

impl Router for GsiRouter {
    fn route(&mut self, pins: &[Option<Message>; PINS]) {
        self.0.change(|table| table.pins = *pins);
    }
}

/// A message's way to the table.
pub(super) struct MsiLine {
    line: Event,
    number: usize,
    routes: Arc<Routes>,
}

impl MessageLine for MsiLine {
    fn route(&self, message: Option<pci::Message>) {
        self.routes
            .change(|table| table.messages[self.number] = message);
    }

    fn signal(&self) {
        self.line.signal();
    }

    fn event(&self) -> Option<&Event> {
        Some(&self.line)
    }
}

fn entry(gsi: u32, (address, data): (u64, u32)) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi.address_lo = address as u32;
    entry.u.msi.address_hi = (address >> 32) as u32;
    entry.u.msi.data = data;
    entry
}
