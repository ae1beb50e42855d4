//! What a VM consists of before it runs.

use super::devices::Handles;
use super::since::Since;
use super::slots::SharedTransport;
use super::vcpu::{Shared, Vcpu};
use crate::devices::pci::ConfigPorts;
use crate::snapshot::MachineState;
use kvm_ioctls::VmFd;
use kvmlet_sys::written::Written;
use std::any::Any;
use std::sync::{Arc, Mutex};

/// All of a VM: some of it goes to threads, and some stays with whoever holds it.
pub(super) struct Built {
    // Declared first, dropped first: vCPUs go before the VM, and guest RAM after both.
    pub vcpus: Vec<Vcpu>,
    pub fd: Arc<VmFd>,
    pub shared: Shared,
    pub handles: Handles,
    pub transports: Vec<SharedTransport>,
    /// What it is made of.
    pub machine: MachineState,
    /// Its devices are on a PCI bus.
    pub pci: Option<Arc<Mutex<ConfigPorts>>>,
    /// What is written to of its memory, if it can be told while it runs.
    pub written: Option<Written>,
    /// What its snapshots can be the difference to.
    pub since: Since,
    /// It goes on as another was: its devices sleep.
    pub resumes: bool,
    /// What goes when the VM has gone.
    pub kept: Vec<Box<dyn Any + Send + Sync>>,
}
