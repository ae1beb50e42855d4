//! Why a VM cannot go on here as it was elsewhere.

use crate::devices::virtio::Unfit;

/// Why a VM cannot go on from a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The machine is another one.
    #[error("the VM that was saved had {had} as {what}, and this one has {has}")]
    Differs {
        /// What differs.
        what: String,
        /// What it was.
        had: String,
        /// What it is now.
        has: String,
    },
    /// A disk has been written to since.
    #[error(
        "disk {disk} has been written to since the VM was saved, and its guest would not know of that"
    )]
    Written {
        /// The name by which the guest knows it.
        disk: String,
    },
    /// This host's processor is another one.
    #[error("this host's KVM lacks what the guest has found in its processor: {missing}")]
    Cpu {
        /// Features by their names.
        missing: String,
    },
    /// Time would run backwards.
    #[error(
        "the time-stamp counter cannot be set here, and has counted {behind} less than where the VM was saved: time would \
         run backwards for its guest"
    )]
    Tsc {
        /// By how much.
        behind: u64,
    },
    /// A register that KVM does not tell of here.
    #[error("this host's KVM has no model-specific register {index:#x}, which the guest had")]
    Msr {
        /// Its number.
        index: u32,
    },
    /// A mode that KVM would take its processor into, and that no guest can be in.
    #[error("its processor is in a mode that no guest can be in (EFER {bits:#x})")]
    Efer {
        /// The bits that say so.
        bits: u64,
    },
    /// Guests of the guest.
    #[error("its guest can have guests of its own, and what those do is in no snapshot")]
    Nested,
    /// A device cannot go on.
    #[error("{device} cannot go on as it was")]
    Device {
        /// The name by which the guest knows it.
        device: String,
        /// Why not.
        #[source]
        source: Unfit,
    },
    /// Another number of devices than its machine has.
    #[error("it tells of {told} devices, and its machine has {has}")]
    Devices {
        /// What it tells of.
        told: usize,
        /// What there are.
        has: usize,
    },
    /// The serial port cannot be as it was.
    #[error("the serial port cannot go on as it was")]
    Serial,
}
