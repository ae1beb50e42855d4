//! The first part of a file: a head, and sections, each with its kind, its length and a checksum of all three.
//!
//! A kind that is not known is refused by its number, unless it is one that can be done without.

use super::bytes::{Garbled, Record, split};
use super::fault::Fault;
use super::layout::{HEAD_BYTES, MAGIC, MEMORY_START, VERSION};
use super::state::{SnapshotId, VmState};

const MACHINE: u32 = 1;
const CLOCK: u32 = 2;
const VCPU: u32 = 3;
const IOAPIC: u32 = 4;
const SERIAL: u32 = 5;
const POWER: u32 = 6;
const DEVICE: u32 = 7;
const END: u32 = 8;
/// Only of a guest that wants to hear: a kvmlet that cannot tell it is not to have it go on.
const GENERATION: u32 = 9;
/// Only of a machine with a PCI bus: the address in its port, and behind each device its function.
const PCI: u32 = 10;
const FUNCTION: u32 = 11;
/// Only of a difference: its base. Who does not know it would take memory for all that there is.
const BASE: u32 = 12;
/// Kinds from here on are skipped by who does not know them.
const OPTIONAL: u32 = 1 << 31;
/// What whoever has written the file has noted.
const NOTE: u32 = OPTIONAL | 1;
/// By which other snapshots name it.
const ID: u32 = OPTIONAL | 2;

/// Kind, length, checksum.
const SECTION_HEAD: usize = 12;
/// No VM has more of one kind: vCPUs and devices.
const MOST: usize = 256;

/// A VM's state as the first part of a file.
pub fn encode(state: &VmState) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    VERSION.put(&mut bytes);
    0u32.put(&mut bytes);
    if state.id != SnapshotId::default() {
        section(ID, &state.id, &mut bytes);
    }
    if let Some(base) = &state.base {
        section(BASE, base, &mut bytes);
    }
    section(MACHINE, &state.machine, &mut bytes);
    section(CLOCK, &state.clock, &mut bytes);
    for vcpu in &state.vcpus {
        section(VCPU, vcpu, &mut bytes);
    }
    section(IOAPIC, &state.ioapic, &mut bytes);
    section(SERIAL, &state.serial, &mut bytes);
    section(POWER, &state.exit_code, &mut bytes);
    if state.generation != 0 {
        section(GENERATION, &state.generation, &mut bytes);
    }
    if let Some(address) = &state.pci {
        section(PCI, address, &mut bytes);
    }
    for device in &state.devices {
        section(DEVICE, device, &mut bytes);
        if let Some(function) = &device.function {
            section(FUNCTION, function, &mut bytes);
        }
    }
    section(END, &0u8, &mut bytes);
    let length = bytes.len() as u32;
    bytes[12..HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn section(kind: u32, content: &impl Record, to: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    content.put(&mut bytes);
    raw_section(kind, &bytes, to);
}

fn raw_section(kind: u32, content: &[u8], to: &mut Vec<u8>) {
    kind.put(to);
    (content.len() as u32).put(to);
    checksum(kind, content).put(to);
    to.extend(content);
}

fn checksum(kind: u32, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&kind.to_le_bytes());
    hasher.update(&(content.len() as u32).to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

/// The first part of a file with a note before its end, instead of the one that it has.
///
/// # Errors
/// What is wrong with it, or [`Fault::Length`] if there is no room for the note.
pub(super) fn with_note(bytes: &[u8], note: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut noted = bytes.get(..HEAD_BYTES).ok_or(Fault::Short)?.to_vec();
    each(bytes, |kind, content| {
        if kind == END {
            raw_section(NOTE, note, &mut noted);
        }
        if kind != NOTE {
            raw_section(kind, content, &mut noted);
        }
        Ok(())
    })?;
    if noted.len() > MEMORY_START as usize {
        return Err(Fault::Length);
    }
    let length = noted.len() as u32;
    noted[12..HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(noted)
}

/// The note in the first part of a file.
///
/// # Errors
/// What is wrong with it.
pub(super) fn note(bytes: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let mut found = None;
    each(bytes, |kind, content| {
        if kind == NOTE {
            found = Some(content.to_vec());
        }
        Ok(())
    })?;
    Ok(found)
}

/// Looks at the head; returns how long the first part is.
pub(super) fn head(bytes: &[u8; HEAD_BYTES]) -> Result<usize, Fault> {
    let mut rest = &bytes[..];
    let cut = |_: Garbled| Fault::Short;
    if split(&mut rest, MAGIC.len()).map_err(cut)? != MAGIC {
        return Err(Fault::Foreign);
    }
    let version = u32::take(&mut rest).map_err(cut)?;
    if version != VERSION {
        return Err(Fault::Version(version));
    }
    let length = u32::take(&mut rest).map_err(cut)? as usize;
    match (HEAD_BYTES..=MEMORY_START as usize).contains(&length) {
        true => Ok(length),
        false => Err(Fault::Length),
    }
}

/// What sections have been read so far.
#[derive(Default)]
struct Found {
    id: Option<SnapshotId>,
    base: Option<SnapshotId>,
    machine: Option<super::MachineState>,
    clock: Option<kvm_bindings::kvm_clock_data>,
    vcpus: Vec<super::VcpuState>,
    ioapic: Option<crate::devices::ioapic::IoapicState>,
    serial: Option<crate::devices::serial::SerialState>,
    exit_code: Option<u8>,
    generation: Option<u8>,
    pci: Option<u32>,
    devices: Vec<crate::devices::virtio::TransportState>,
}

/// The state that the first part of a file tells of.
///
/// # Errors
/// What is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<VmState, Fault> {
    let mut found = Found::default();
    each(bytes, |kind, content| match kind {
        END => Ok(()),
        _ => found.add(kind, content),
    })?;
    found.state()
}

/// Hands out all sections of the first part of a file, the one at its end among them.
fn each(bytes: &[u8], mut see: impl FnMut(u32, &[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
    let begin: &[u8; HEAD_BYTES] = bytes.first_chunk().ok_or(Fault::Short)?;
    let length = head(begin)?;
    let mut rest = bytes.get(HEAD_BYTES..length).ok_or(Fault::Short)?;
    loop {
        let (kind, content) = next(&mut rest)?;
        see(kind, content)?;
        if kind == END {
            break;
        }
    }
    match rest.is_empty() {
        true => Ok(()),
        false => Err(Fault::Length),
    }
}

/// The next section: its kind, and what is in it.
fn next<'a>(rest: &mut &'a [u8]) -> Result<(u32, &'a [u8]), Fault> {
    let short = |_: Garbled| Fault::Short;
    let mut head = split(rest, SECTION_HEAD).map_err(short)?;
    let mut number = || u32::take(&mut head).map_err(short);
    let (kind, length, expected) = (number()?, number()?, number()?);
    let content = split(rest, length as usize).map_err(short)?;
    match checksum(kind, content) == expected {
        true => Ok((kind, content)),
        false => Err(Fault::Checksum(kind)),
    }
}

impl Found {
    fn add(&mut self, kind: u32, mut content: &[u8]) -> Result<(), Fault> {
        let content = &mut content;
        match kind {
            ID => once(&mut self.id, content),
            BASE => once(&mut self.base, content),
            MACHINE => once(&mut self.machine, content),
            CLOCK => once(&mut self.clock, content),
            VCPU => several(&mut self.vcpus, content),
            IOAPIC => once(&mut self.ioapic, content),
            SERIAL => once(&mut self.serial, content),
            POWER => once(&mut self.exit_code, content),
            GENERATION => once(&mut self.generation, content),
            PCI => once(&mut self.pci, content),
            DEVICE => several(&mut self.devices, content),
            FUNCTION => match self.devices.last_mut() {
                Some(device) => once(&mut device.function, content),
                None => Err(Garbled),
            },
            OPTIONAL.. => return Ok(()),
            other => return Err(Fault::Unknown(other)),
        }
        .and_then(|()| content.is_empty().then_some(()).ok_or(Garbled))
        .map_err(|_| Fault::Section(kind))
    }

    fn state(self) -> Result<VmState, Fault> {
        let machine = self.machine.ok_or(Fault::Missing(MACHINE))?;
        let vcpus = self.vcpus;
        let in_order = (0u32..)
            .zip(&vcpus)
            .all(|(number, vcpu)| u32::from(vcpu.number) == number);
        if !in_order || vcpus.len() != usize::from(machine.vcpus) {
            return Err(Fault::Section(VCPU));
        }
        Ok(VmState {
            id: self.id.unwrap_or_default(),
            base: self.base,
            machine,
            clock: self.clock.ok_or(Fault::Missing(CLOCK))?,
            vcpus,
            ioapic: self.ioapic.ok_or(Fault::Missing(IOAPIC))?,
            serial: self.serial.ok_or(Fault::Missing(SERIAL))?,
            exit_code: self.exit_code.ok_or(Fault::Missing(POWER))?,
            generation: self.generation.unwrap_or(0),
            pci: self.pci,
            devices: self.devices,
        })
    }
}

fn once<T: Record>(place: &mut Option<T>, from: &mut &[u8]) -> Result<(), Garbled> {
    match place.replace(T::take(from)?) {
        None => Ok(()),
        Some(_) => Err(Garbled),
    }
}

fn several<T: Record>(list: &mut Vec<T>, from: &mut &[u8]) -> Result<(), Garbled> {
    if list.len() == MOST {
        return Err(Garbled);
    }
    list.push(T::take(from)?);
    Ok(())
}
