//! A machine that goes on as another was: what of it has to be the same, and what is taken up.

use super::devices::{Devices, FarEnds, Handles};
use super::error::Error;
use super::refusal::Refusal;
use crate::arch::x86_64::cpuid::{self, Leaf};
use crate::config::{Cache, VmConfig};
use crate::snapshot::{BalloonRecord, DiskRecord, MachineState, NetRecord, Saved, VmState};
use kvmlet_sys::thread::lock;
use std::fmt::Debug;
use std::path::Path;

/// What a machine of that configuration is made of; what its disks are like is known when they are open.
pub(super) fn machine(config: &VmConfig, far_ends: &FarEnds) -> MachineState {
    let disk = |disk: &crate::config::Disk| DiskRecord {
        read_only: disk.read_only,
        writeback: disk.cache == Cache::WriteBack,
        queues: disk.queues.get(),
        ..DiskRecord::default()
    };
    let net = |end: &super::devices::Endpoint| NetRecord {
        mac: end.interface.mac.octets(),
        mtu: end.interface.mtu,
        pairs: end.ports.len() as u8,
    };
    MachineState {
        vcpus: config.vcpus.get(),
        memory_bytes: config.memory.bytes(),
        rng: config.rng,
        nested: config.nested,
        pmu: config.pmu,
        disks: config.disks.iter().map(disk).collect(),
        nets: far_ends.interfaces.iter().map(net).collect(),
        balloon: config.balloon.map(|balloon| BalloonRecord {
            bytes: balloon.size.bytes(),
            deflate_on_oom: balloon.deflate_on_oom,
            reporting: balloon.reporting,
        }),
        vsock: config.vsock.as_ref().map(|vsock| vsock.cid.get()),
    }
}

/// Says of which snapshot something is wrong.
pub(super) fn of(path: &Path) -> impl Fn(Refusal) -> Error {
    move |source| Error::Saved {
        path: path.into(),
        source,
    }
}

fn same<T: PartialEq + Debug>(what: &str, had: T, has: T) -> Result<(), Refusal> {
    match had == has {
        true => Ok(()),
        false => Err(Refusal::Differs {
            what: what.into(),
            had: format!("{had:?}"),
            has: format!("{has:?}"),
        }),
    }
}

/// Compares by what devices are reached.
pub(super) fn check_bus(had: &VmState, has_pci: bool) -> Result<(), Refusal> {
    same("a PCI bus", had.pci.is_some(), has_pci)
}

/// Compares machines, before anything is made. Which disks they are is looked at [later](check_disks).
pub(super) fn check_machine(had: &MachineState, has: &MachineState) -> Result<(), Refusal> {
    same("its number of vCPUs", had.vcpus, has.vcpus)?;
    same("its memory in bytes", had.memory_bytes, has.memory_bytes)?;
    same("an entropy source", had.rng, has.rng)?;
    if had.nested || has.nested {
        return Err(Refusal::Nested);
    }
    same("performance counters", had.pmu, has.pmu)?;
    same("its number of disks", had.disks.len(), has.disks.len())?;
    for (number, (had, has)) in had.disks.iter().zip(&has.disks).enumerate() {
        let of = |what: &str| format!("{what} of disk {number}");
        same(&of("read-only"), had.read_only, has.read_only)?;
        same(&of("a write-back cache"), had.writeback, has.writeback)?;
        same(&of("queues"), had.queues, has.queues)?;
    }
    same("its number of interfaces", had.nets.len(), has.nets.len())?;
    for (number, (had, has)) in had.nets.iter().zip(&has.nets).enumerate() {
        same(&format!("interface {number}"), had, has)?;
    }
    let kinds = |machine: &MachineState| {
        let balloon = machine.balloon;
        balloon.map(|balloon| (balloon.deflate_on_oom, balloon.reporting))
    };
    same("a balloon (deflates, reports)", kinds(had), kinds(has))?;
    same("its address for sockets", had.vsock, has.vsock)
}

/// What disks are like now, each beside what is known of it.
pub(super) fn look_at_disks(handles: &Handles, disks: &mut [DiskRecord]) {
    for (record, disk) in disks.iter_mut().zip(&handles.disks) {
        record.id = disk.identity().to_vec();
        record.bytes = disk.bytes();
        record.stamp = disk.stamp().filter(|_| !record.read_only);
    }
}

/// Compares disks with what they were.
fn check_disks(had: &MachineState, handles: &Handles) -> Result<(), Refusal> {
    for (had, disk) in had.disks.iter().zip(&handles.disks) {
        let differs = |what: &str, had: String, has: String| Refusal::Differs {
            what: format!("the {what} of {}", disk.name()),
            had,
            has,
        };
        let (id, bytes) = (disk.identity(), disk.bytes());
        if had.id != id {
            let text = |id: &[u8]| {
                String::from_utf8_lossy(id)
                    .trim_end_matches('\0')
                    .to_owned()
            };
            return Err(differs("serial number", text(&had.id), text(&id)));
        }
        if had.bytes != bytes {
            return Err(differs("size", had.bytes.to_string(), bytes.to_string()));
        }
        let now = disk.stamp();
        if let (Some(had), Some(now)) = (had.stamp, now)
            && now.is_later_than(&had)
        {
            let disk = disk.name().to_owned();
            return Err(Refusal::Written { disk });
        }
    }
    Ok(())
}

/// Has devices go on as others were, once they are woken. Routes of interrupts are set here, so vCPUs come
/// later.
pub(super) fn take_up(devices: &Devices, saved: &Saved) -> Result<(), Error> {
    let (state, refused) = (&saved.state, of(&saved.path));
    check_disks(&state.machine, &devices.handles).map_err(&refused)?;
    let (told, has) = (state.devices.len(), devices.transports.len());
    if told != has {
        return Err(refused(Refusal::Devices { told, has }));
    }
    lock(devices.power_button.ioapic()).take_up(&state.ioapic);
    let serial = lock(&devices.serial).take_up(&state.serial);
    serial.map_err(|_| refused(Refusal::Serial))?;
    lock(&devices.power).leave(state.exit_code);
    lock(&devices.generation).take_up(state.generation);
    if let (Some(ports), Some(address)) = (&devices.pci, state.pci) {
        lock(ports).set_address(address);
    }
    for (device, state) in devices.transports.iter().zip(&state.devices) {
        let mut device = lock(device);
        let taken = device.take_up(state);
        taken.map_err(|source| {
            let device = device.session().device().name().to_owned();
            refused(Refusal::Device { device, source })
        })?;
    }
    Ok(())
}

/// Looks whether a vCPU that is offered that can be what another was.
pub(super) fn check_cpu(had: &[Leaf], offered: &[Leaf]) -> Result<(), Refusal> {
    let missing = cpuid::missing(had, offered);
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Refusal::Cpu {
            missing: missing.join(", "),
        }),
    }
}
