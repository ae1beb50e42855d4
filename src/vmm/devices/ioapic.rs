//! I/O APIC: 24 pins, each an event that becomes a message to a local APIC (Intel 82093AA data sheet).
//!
//! All pins are edge-triggered, as MADT, DSDT and MP table say: no device here holds its line, and with a split
//! interrupt controller KVM asks no line again after an interrupt (KVM_IRQFD_FLAG_RESAMPLE is refused). So the trigger
//! mode of a redirection entry is not a driver's choice: it reads as edge whatever was written, and an entry that was
//! meant as level-triggered delivers an interrupt for each edge.
//!
//! Delivery does not pass through here. The redirection table tells where each pin leads, and a [`Router`]
//! makes that so once; from then on an interrupt goes from its source to the local APIC by itself.

use super::{Action, Device};

/// Number of pins.
pub const PINS: usize = 24;
/// Size of its registers, in bytes.
pub const BYTES: u64 = 0x100;

/// Memory-mapped registers (§3.1). That for ends of interrupts, which version 0x20 has at 0x40, is for
/// level-triggered pins and takes whatever is written.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
/// Indirect registers (§3.2).
const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;
const TABLE: u8 = 0x10;
const VERSION_VALUE: u32 = 0x20 | (PINS as u32 - 1) << 16;
const ID_MASK: u32 = 0x0f00_0000;

/// Fields of a redirection entry (§3.2.4).
const VECTOR: u64 = 0xff;
const DELIVERY_MODE: u64 = 7 << 8;
const LOGICAL: u64 = 1 << 11;
const DELIVERY_STATUS: u64 = 1 << 12;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const DESTINATION_SHIFT: u32 = 56;
/// An interrupt is on its way at once, and no pin is level-triggered.
const READ_ONLY: u64 = DELIVERY_STATUS | REMOTE_IRR | LEVEL;

/// A message-signalled interrupt (Intel SDM vol. 3A §11.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Destination.
    pub address: u32,
    /// Vector and delivery mode.
    pub data: u32,
}

/// Makes pins lead somewhere.
pub trait Router: Send {
    /// The whole table: for each pin its message, or nothing where it is masked.
    fn route(&mut self, pins: &[Option<Message>; PINS]);
}

/// The device.
pub struct Ioapic<R> {
    id: u32,
    selected: u8,
    table: [u64; PINS],
    routed: [Option<Message>; PINS],
    router: R,
}

/// What its registers hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoapicState {
    /// Its id, where the register has it.
    pub id: u32,
    /// The register that the window shows.
    pub selected: u8,
    /// The redirection table.
    pub table: [u64; PINS],
}

impl<R: Router> Ioapic<R> {
    /// What its registers hold.
    pub fn state(&self) -> IoapicState {
        let (id, selected, table) = (self.id, self.selected, self.table);
        IoapicState {
            id,
            selected,
            table,
        }
    }

    /// Has its registers hold that, as far as a driver could have written it, and pins lead where that says.
    pub fn take_up(&mut self, state: &IoapicState) {
        (self.id, self.selected) = (state.id & ID_MASK, state.selected);
        self.table = state.table.map(|entry| entry & !READ_ONLY);
        self.reroute();
    }

    /// An I/O APIC after reset: every pin masked.
    pub fn new(id: u8, router: R) -> Self {
        Self {
            id: u32::from(id) << 24 & ID_MASK,
            selected: 0,
            table: [MASKED; PINS],
            routed: [None; PINS],
            router,
        }
    }

    /// Where a pin leads: nothing while it is masked.
    pub fn message(&self, pin: usize) -> Option<Message> {
        self.routed.get(pin).copied().flatten()
    }

    fn read_selected(&self) -> u32 {
        match self.selected {
            ID | ARBITRATION => self.id,
            VERSION => VERSION_VALUE,
            index => match self.entry(index) {
                Some((pin, high)) => (self.table[pin] >> if high { 32 } else { 0 }) as u32,
                None => 0,
            },
        }
    }

    fn write_selected(&mut self, value: u32) {
        if self.selected == ID {
            self.id = value & ID_MASK;
        } else if let Some((pin, high)) = self.entry(self.selected) {
            let (shift, kept) = if high { (32, 0) } else { (0, READ_ONLY) };
            let mask = 0xffff_ffff << shift & !kept;
            self.table[pin] = self.table[pin] & !mask | u64::from(value) << shift & mask;
            self.reroute();
        }
    }

    /// The pin whose entry an indirect register holds half of, and which half.
    fn entry(&self, index: u8) -> Option<(usize, bool)> {
        let offset = usize::from(index.checked_sub(TABLE)?);
        (offset < PINS * 2).then_some((offset / 2, offset % 2 == 1))
    }

    /// Routing costs a system call and, inside the kernel, a grace period: only real changes are passed on.
    fn reroute(&mut self) {
        let wanted = self.table.map(message);
        if wanted != self.routed {
            self.routed = wanted;
            self.router.route(&wanted);
        }
    }
}

fn message(entry: u64) -> Option<Message> {
    if entry & MASKED != 0 {
        return None;
    }
    let destination = (entry >> DESTINATION_SHIFT) as u32;
    let logical = u32::from(entry & LOGICAL != 0);
    Some(Message {
        // Bit 3, the redirection hint, goes with logical mode.
        address: 0xfee0_0000 | destination << 12 | logical << 3 | logical << 2,
        data: (entry & (VECTOR | DELIVERY_MODE)) as u32,
    })
}

impl<R: Router> Device for Ioapic<R> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            SELECT => u32::from(self.selected),
            WINDOW => self.read_selected(),
            _ => 0,
        };
        data.fill(0);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Action {
        // Registers are 32 bits wide; QEMU and KVM take narrower writes as zero-extended, and so do we.
        let mut bytes = [0; 4];
        bytes
            .iter_mut()
            .zip(data)
            .for_each(|(to, from)| *to = *from);
        let value = u32::from_le_bytes(bytes);
        match offset {
            SELECT => self.selected = value as u8,
            WINDOW => self.write_selected(value),
            _ => {}
        }
        Action::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    type Routes = [Option<Message>; PINS];

    struct Log(Sender<Routes>);

    impl Router for Log {
        fn route(&mut self, pins: &Routes) {
            self.0.send(*pins).unwrap();
        }
    }

    fn ioapic() -> (Ioapic<Log>, Receiver<Routes>) {
        let (sender, receiver) = channel();
        (Ioapic::new(2, Log(sender)), receiver)
    }

    fn read(ioapic: &mut Ioapic<Log>, register: u8) -> u32 {
        let _ = ioapic.write(SELECT, &[register, 0, 0, 0]);
        let mut data = [0; 4];
        ioapic.read(WINDOW, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(ioapic: &mut Ioapic<Log>, register: u8, value: u32) {
        let _ = ioapic.write(SELECT, &[register, 0, 0, 0]);
        let _ = ioapic.write(WINDOW, &value.to_le_bytes());
    }

    #[test]
    fn it_tells_its_version_and_id() {
        let (mut ioapic, _) = ioapic();
        assert_eq!(read(&mut ioapic, VERSION), 0x0017_0020);
        assert_eq!(read(&mut ioapic, ID), 2 << 24);
        assert_eq!(read(&mut ioapic, TABLE), MASKED as u32);
        assert_eq!(read(&mut ioapic, 0xff), 0);
    }

    #[test]
    fn unmasking_a_pin_routes_it_once() {
        let (mut ioapic, routes) = ioapic();
        let low = TABLE + 2 * 4;
        write(&mut ioapic, low + 1, 3 << 24);
        assert!(routes.try_recv().is_err(), "still masked");
        write(&mut ioapic, low, 0x31);
        let message = routes.try_recv().unwrap()[4].unwrap();
        assert_eq!(
            message,
            Message {
                address: 0xfee0_3000,
                data: 0x31
            }
        );
        write(&mut ioapic, low, 0x31);
        assert!(routes.try_recv().is_err(), "nothing changed");
        assert_eq!(ioapic.message(4), Some(message));
        write(&mut ioapic, low, 0x1_0031);
        assert_eq!(routes.try_recv().unwrap()[4], None);
        assert_eq!((ioapic.message(4), ioapic.message(PINS)), (None, None));
    }

    #[test]
    fn logical_mode_is_passed_on() {
        let (mut ioapic, routes) = ioapic();
        write(&mut ioapic, TABLE, (0x40 | LOGICAL) as u32);
        let message = routes.try_recv().unwrap()[0].unwrap();
        assert_eq!(
            message,
            Message {
                address: 0xfee0_000c,
                data: 0x40
            }
        );
    }

    #[test]
    fn no_pin_becomes_level_triggered() {
        let (mut ioapic, routes) = ioapic();
        write(&mut ioapic, TABLE, (0x40 | LEVEL) as u32);
        assert_eq!(read(&mut ioapic, TABLE), 0x40, "what a driver reads back");
        // Neither its level nor its trigger mode (bits 14 and 15): no interrupt that anybody would have to end.
        let message = routes.try_recv().unwrap()[0].unwrap();
        assert_eq!(message.data, 0x40);
        let _ = ioapic.write(0x40, &[0x40, 0, 0, 0]);
        assert!(routes.try_recv().is_err());
    }

    #[test]
    fn read_only_bits_stay() {
        let (mut ioapic, _routes) = ioapic();
        write(&mut ioapic, TABLE, 0xffff_ffff);
        assert_eq!(u64::from(read(&mut ioapic, TABLE)) & READ_ONLY, 0);
    }
}
