//! What of a VM can be changed while its guest runs.

use crate::Error;
use kvmlet_control::{Limited, Order};
use kvmlet_spec::{MemorySize, RateLimit};
use kvmlet_vmm::devices::virtio::net::Direction;
use kvmlet_vmm::vm::VmHandle;

/// Does what is ordered, if it is a change.
pub(crate) fn change(vm: &VmHandle, order: Order) -> Option<Result<(), Error>> {
    Some(match order {
        Order::Press => press(vm),
        Order::Balloon { mib } => set_balloon(vm, mib),
        Order::Limit { device, limit } => set_limit(vm, device, limit),
        Order::Resize { disk } => match vm.disks().get(usize::from(disk)) {
            Some(disk) => disk
                .resize()
                .map(drop)
                .map_err(|error| Error::Vm(error.into())),
            None => Err(absent("disk", disk)),
        },
        _ => return None,
    })
}

fn press(vm: &VmHandle) -> Result<(), Error> {
    match vm.request_stop()? {
        true => Ok(()),
        false => Err(Error::Unlistening),
    }
}

fn set_balloon(vm: &VmHandle, mib: u32) -> Result<(), Error> {
    let balloon = vm.balloon().ok_or(Error::NoBalloon)?;
    Ok(balloon.set_target(u64::from(mib).mib())?)
}

fn set_limit(vm: &VmHandle, device: Limited, limit: RateLimit) -> Result<(), Error> {
    let (place, direction) = match device {
        Limited::Disk(place) => {
            let disk = vm.disks().get(usize::from(place));
            let disk = disk.ok_or(absent("disk", place))?;
            disk.set_rate_limit(limit);
            return Ok(());
        }
        Limited::Receive(place) => (place, Direction::Receive),
        Limited::Transmit(place) => (place, Direction::Transmit),
        _ => return Err(Error::Unknown),
    };
    let interface = vm.interfaces().nth(usize::from(place));
    let interface = interface.ok_or(absent("interface", place))?;
    if interface.is_the_kernels() {
        return Err(Error::Unlimited { place });
    }
    interface.set_rate_limit(direction, limit);
    Ok(())
}

fn absent(what: &'static str, place: u8) -> Error {
    Error::NoDevice { what, place }
}
