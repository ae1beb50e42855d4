//! One VM and what the host gives it, joined: `kvmlet-vmm` knows no host, and `kvmlet-host` knows no VM. For kvmlet's own
//! crates: nothing here is stable.

// Whoever runs a kvmlet with file capabilities must not steer it by the environment; tests may.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

// Tests make calls from within lists that have none for memory.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: kvmlet_sys::heap::Heap = kvmlet_sys::heap::Heap;

mod admission;
mod allocator;
mod attendant;
mod attended;
mod changes;
mod confinement;
mod console;
mod contact;
mod control;
mod error;
mod fate;
mod held_networks;
pub mod instance;
mod last_lines;
mod launch;
mod network_service;
mod networks;
mod origin;
mod pager;
mod reports;
mod saving;
mod session;
mod silence;
mod stats_file;
mod stopping;
mod supervisor;
mod upstream;
pub mod vsock;
mod waiting;

pub use attendant::Attendant;
pub use console::{Raw as RawTerminal, size as terminal_size};
pub use control::{ControlListener, ControlSocket, Wanted};
pub use error::Error;
pub use held_networks::HeldNetworks;
pub use launch::run;
pub use networks::{endpoints, far_ends, set_up_networks};
pub use reports::StatsSink;
pub use stats_file::{StatsFile, Written};

use kvmlet_host::net::Network;
use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_spec::{PortMapping, VmConfig};
use kvmlet_vmm::snapshot::Saved;
use kvmlet_vmm::vm::{self, FittingConfig, Vm};
use std::io::Write;
use vsock::Sockets;

/// A VM that is built and has not run yet, on networks that this process holds.
///
/// What it has of this host is noted in the runtime directory; without one there can be no interfaces but on taps that
/// exist. The VM's threads write to `output` while the guest does: see [`Vm::with_console`].
///
/// # Errors
/// What the host cannot give, and what is wrong with the VM.
pub fn build(
    config: VmConfig,
    output: impl Write + Send + 'static,
    runtime: Option<&RuntimeDirectory>,
) -> Result<Vm, Error> {
    let config = FittingConfig::new(config)?;
    vm::make_scratch(&config)?;
    assemble(config, None, output, runtime)
}

/// The same of a configuration that was looked at, whose scratch disk is there.
pub(crate) fn assemble(
    config: FittingConfig,
    saved: Option<Saved>,
    output: impl Write + Send + 'static,
    runtime: Option<&RuntimeDirectory>,
) -> Result<Vm, Error> {
    let mut networks = set_up_networks(&config, runtime)?;
    for network in &mut networks {
        network.serve()?;
    }
    let mut sockets = config.vsock.as_ref().map(Sockets::set_up).transpose()?;
    let far_ends = far_ends(&networks, sockets.as_ref());
    if let Some(sockets) = &mut sockets {
        sockets.serve()?;
    }
    let notes = runtime.map(|runtime| &**runtime);
    let mut vm = Vm::with_endpoints(config, saved, output, far_ends, notes)?;
    vm.keep(networks);
    vm.keep(sockets);
    Ok(vm)
}

/// The published ports, with those of the host that were chosen for them.
pub fn published(networks: &[Network]) -> impl Iterator<Item = &PortMapping> {
    networks.iter().flat_map(Network::published)
}
