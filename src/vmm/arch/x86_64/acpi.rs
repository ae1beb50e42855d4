//! ACPI tables: how stock kernels find CPUs, interrupt lines, devices and the way to power off.
//!
//! The machine is "hardware-reduced" (ACPI 6.5 §4.1): no PM timer, no SCI, no fixed buttons; sleep control is
//! one port, and the power button is a device whose interrupt a generic event device has (§5.6.9), and so is the machine's generation. RSDP, XSDT, FADT,
//! MADT and DSDT lie in the BIOS area.

use super::address_map::{
    ACPI_TABLES, COM1, COM1_IRQ, GENERATION, GENERATION_IRQ, I8042, IOAPIC, LAPIC, PCI_CONFIG,
    PCI_WINDOW, PCI_WINDOW_BYTES, POWER, POWER_BUTTON_IRQ, PVPANIC,
};
use crate::config::VcpuCount;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, EISAName, Equal, IO, If, Interrupt,
    Memory32Fixed, Method, Name, Notify, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{self, AccessSize, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::{Aml, rsdp::Rsdp, sdt::Sdt, xsdt::XSDT};
use kvmlet_contract::machine::SLEEP_TYPE_OFF;
use std::io;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

const OEM_ID: [u8; 6] = *b"KVMLET";
const OEM_TABLE_ID: [u8; 8] = *b"MICROVM ";
const OEM_REVISION: u32 = 1;
const RSDP_BYTES: u64 = 36;
/// What resets the machine through the keyboard controller.
const RESET_VALUE: u8 = 0xfe;
/// `IAPC_BOOT_ARCH` (ACPI 6.5 table 5.11): no VGA, no CMOS clock.
const BOOT_ARCH: u16 = 1 << 2 | 1 << 5;
/// Virtio over MMIO, as Linux and QEMU name it.
const VIRTIO_MMIO_HID: &str = "LNRO0005";
/// What a power button is notified of when it is pressed (§5.6.6, table 5.166).
const PRESSED: u8 = 0x80;
/// What is notified of another generation ("Virtual Machine Generation ID", Microsoft 2012, and QEMU docs/specs/vmgenid.rst).
const RENEWED: u8 = 0x80;

/// Why the tables were not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More devices and CPUs than the BIOS area has room for.
    #[error("the ACPI tables need {bytes} bytes, and there is room for {room}")]
    Room {
        /// Bytes that they need.
        bytes: u64,
        /// Bytes that there are.
        room: u64,
    },
    /// Guest memory has no such address.
    #[error("cannot write the ACPI tables")]
    Write(#[source] io::Error),
}

impl Error {
    fn write(source: GuestMemoryError) -> Self {
        Error::Write(io::Error::other(source))
    }
}

/// One virtio-mmio device as the DSDT tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioSlot {
    /// First address of its registers.
    pub address: u64,
    /// Size of its registers, in bytes.
    pub bytes: u32,
    /// Its interrupt: a pin of the I/O APIC.
    pub irq: u32,
}

/// Writes all tables and returns the address of the RSDP. `has_pci`: there is a PCI bus.
///
/// # Errors
/// When there is no room or no memory for them.
pub fn write<M: Bytes<GuestAddress, E = GuestMemoryError>>(
    memory: &M,
    vcpus: VcpuCount,
    slots: &[MmioSlot],
    has_pci: bool,
) -> Result<GuestAddress, Error> {
    // Tables that point come after those they point to; only the RSDP has its place beforehand.
    let mut place = ACPI_TABLES.0 + RSDP_BYTES.next_multiple_of(16);
    let mut put = |table: &dyn Aml| -> Result<u64, Error> {
        let at = place;
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        place = (at + bytes.len() as u64).next_multiple_of(16);
        if place > GENERATION.0 {
            let base = ACPI_TABLES.0;
            return Err(Error::Room {
                bytes: place - base,
                room: GENERATION.0 - base,
            });
        }
        memory
            .write_slice(&bytes, GuestAddress(at))
            .map_err(Error::write)?;
        Ok(at)
    };
    let dsdt = put(&dsdt(slots, has_pci))?;
    let fadt = put(&fadt(dsdt).finalize())?;
    let madt = put(&madt(vcpus.get()))?;
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = put(&xsdt)?;
    let mut rsdp = Vec::new();
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut rsdp);
    memory
        .write_slice(&rsdp, ACPI_TABLES)
        .map_err(Error::write)?;
    Ok(ACPI_TABLES)
}

fn byte_port(port: u16) -> GAS {
    GAS::new(
        gas::AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        port.into(),
    )
}

/// ACPI 6.5 §5.2.9.
fn fadt(dsdt: u64) -> FADTBuilder {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless)
        .flag(Flags::ResetRegSup)
        .flag(Flags::HwReducedAcpi);
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.reset_reg = byte_port(I8042 + 4);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = byte_port(POWER);
    fadt.sleep_status_reg = byte_port(POWER + 1);
    fadt
}

/// ACPI 6.5 §5.2.12. Every pin is an ISA interrupt or like one, so no overrides are needed.
fn madt(vcpus: u8) -> MADT {
    let address = LocalInterruptController::Address(LAPIC as u32);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, address);
    for id in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(vcpus, IOAPIC as u32, 0));
    madt
}

fn dsdt(slots: &[MmioSlot], has_pci: bool) -> Sdt {
    let mut aml = Vec::new();
    let (off, zero) = (SLEEP_TYPE_OFF, 0u8);
    Name::new(
        "_S5_".into(),
        &Package::new(vec![&off, &zero, &zero, &zero]),
    )
    .to_aml_bytes(&mut aml);
    serial().to_aml_bytes(&mut aml);
    pvpanic().to_aml_bytes(&mut aml);
    events().to_aml_bytes(&mut aml);
    if has_pci {
        pci().to_aml_bytes(&mut aml);
    }
    for (index, slot) in slots.iter().enumerate() {
        virtio_mmio(index, *slot).to_aml_bytes(&mut aml);
    }
    // Revision 2: integers are 64 bits wide.
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    dsdt.append_slice(&aml);
    dsdt
}

/// A device below `\_SB`, as AML bytes.
struct Node(Vec<u8>);

impl Aml for Node {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn node(name: &str, hid: &dyn Aml, uid: u32, resources: Vec<&dyn Aml>) -> Node {
    let mut bytes = Vec::new();
    Scope::new(
        "_SB_".into(),
        vec![&Device::new(
            Path::new(name),
            vec![
                &Name::new("_HID".into(), hid),
                &Name::new("_UID".into(), &uid),
                &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
            ],
        )],
    )
    .to_aml_bytes(&mut bytes);
    Node(bytes)
}

/// Edge-triggered, active high, not shared.
fn interrupt(irq: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, irq)
}

fn serial() -> Node {
    let ports = IO::new(COM1, COM1, 1, 8);
    node(
        "COM1",
        &EISAName::new("PNP0501"),
        0,
        vec![&ports, &interrupt(COM1_IRQ)],
    )
}

fn pvpanic() -> Node {
    node(
        "PEVT",
        &"QEMU0001",
        0,
        vec![&IO::new(PVPANIC, PVPANIC, 1, 1)],
    )
}

/// A power button, the machine's generation, and the device whose events are that the one was pressed and the other renewed.
fn events() -> Node {
    let mut bytes = Vec::new();
    let (button, generation) = (Path::new("PWRB"), Path::new("VGEN"));
    let interrupts = [POWER_BUTTON_IRQ, GENERATION_IRQ].map(interrupt);
    let pressed = Notify::new(&button, &PRESSED);
    let renewed = Notify::new(&generation, &RENEWED);
    let is_button = Equal::new(&Arg(0), &POWER_BUTTON_IRQ);
    let is_generation = Equal::new(&Arg(0), &GENERATION_IRQ);
    let (low, high) = (GENERATION.0 as u32, (GENERATION.0 >> 32) as u32);
    Scope::new(
        "_SB_".into(),
        vec![
            &Device::new(
                Path::new("PWRB"),
                vec![
                    &Name::new("_HID".into(), &EISAName::new("PNP0C0C")),
                    &Name::new("_UID".into(), &0u32),
                ],
            ),
            &Device::new(
                Path::new("VGEN"),
                vec![
                    // Linux has no room for the name by which others know it.
                    &Name::new("_HID".into(), &"VMGENCTR"),
                    &Name::new("_CID".into(), &"VM_Gen_Counter"),
                    &Name::new("_DDN".into(), &"VM_Gen_Counter"),
                    &Name::new("ADDR".into(), &Package::new(vec![&low, &high])),
                ],
            ),
            &Device::new(
                Path::new("GED_"),
                vec![
                    &Name::new("_HID".into(), &"ACPI0013"),
                    &Name::new("_UID".into(), &0u32),
                    &Name::new(
                        "_CRS".into(),
                        &ResourceTemplate::new(vec![&interrupts[0], &interrupts[1]]),
                    ),
                    &Method::new(
                        "_EVT".into(),
                        1,
                        true,
                        vec![
                            &If::new(&is_button, vec![&pressed]),
                            &If::new(&is_generation, vec![&renewed]),
                        ],
                    ),
                ],
            ),
        ],
    )
    .to_aml_bytes(&mut bytes);
    Node(bytes)
}

/// The one PCI bus. Its functions interrupt by messages, so no lines are told.
fn pci() -> Node {
    let bus = AddressSpace::new_bus_number(0u16, 0u16);
    let ports = IO::new(PCI_CONFIG, PCI_CONFIG, 1, 8);
    let last = (PCI_WINDOW + PCI_WINDOW_BYTES - 1) as u32;
    let uncached = AddressSpaceCacheable::NotCacheable;
    let window = AddressSpace::new_memory(uncached, true, PCI_WINDOW as u32, last, None);
    node(
        "PCI0",
        &EISAName::new("PNP0A03"),
        0,
        vec![&bus, &ports, &window],
    )
}

fn virtio_mmio(index: usize, slot: MmioSlot) -> Node {
    let registers = Memory32Fixed::new(true, slot.address as u32, slot.bytes);
    let name = format!("V{index:03}");
    node(
        &name,
        &VIRTIO_MMIO_HID,
        index as u32,
        vec![&registers, &interrupt(slot.irq)],
    )
}

#[cfg(test)]
mod tests;
