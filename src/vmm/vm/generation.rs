//! A machine's generation: other random bytes each time that a guest goes on from a snapshot, and an interrupt that its
//! kernel takes before anything else of it runs.
//!
//! The interrupt goes to all vCPUs, each of which takes it before it executes an instruction with interrupts on, so
//! before any in user mode. Those that come while another renews what its kernel has wait for that one in the guest. So
//! no vCPU has to be held back here until a guest has answered, which may need one that is held back for that.

use super::error::{Doing, Error};
use super::irq;
use crate::arch::x86_64::address_map::{GENERATION, GENERATION_IRQ};
use crate::devices::generation::Generation;
use crate::devices::ioapic::{Ioapic, Message, Router};
use crate::memory::GuestRam;
use kvm_ioctls::VmFd;
use kvmlet_sys::thread::lock;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::sync::Mutex;
use vm_memory::Bytes;

/// Length of the generation.
const BYTES: usize = 16;
/// A fixed interrupt for all local APICs (Intel SDM vol. 3A §11.11.1): KVM takes it for theirs in x2APIC mode, too, as long as
/// it was not told otherwise (KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK).
const ALL: u32 = 0xfee0_0000 | 0xff << 12;

/// Makes guest memory that of another machine.
pub(super) fn renew(ram: &GuestRam) -> Result<(), Error> {
    let written = ram.write_slice(&random()?, GENERATION);
    written.map_err(|error| failed(io::Error::other(error)))
}

/// Random bytes of the host's.
pub(super) fn random() -> Result<[u8; BYTES], Error> {
    let mut id = [0; BYTES];
    // From an initialized generator it returns at once and, up to 256 bytes, in full.
    match getrandom(&mut id, GetRandomFlags::empty()) {
        Ok(BYTES) => Ok(id),
        Ok(_) => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(failed(error.into())),
    }
}

fn failed(source: io::Error) -> Error {
    Error::Host {
        what: "random numbers",
        source,
    }
}

/// Has interrupts wait at vCPUs that have not run here yet, for those kernels that want to hear.
pub(super) fn announce<R: Router>(
    fd: &VmFd,
    device: &Mutex<Generation>,
    ioapic: &Mutex<Ioapic<R>>,
) -> Result<(), Error> {
    let direct = lock(device).vector().map(|vector| Message {
        address: ALL,
        data: vector.into(),
    });
    let acpi = lock(ioapic).message(GENERATION_IRQ as usize);
    for message in [direct, acpi].into_iter().flatten() {
        let taken = irq::send(fd, message);
        let taken = taken.doing("interrupt a guest that goes on from a snapshot")?;
        if !taken {
            log::debug!("the guest does not take the interrupt that it wanted when it goes on");
        }
    }
    Ok(())
}
