//! The host's side of interfaces becomes what a VM takes.

use super::Error;
use super::vsock::Sockets;
use kvmlet_host::net::Network;
use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_spec::{NetworkSpec, VmConfig};
use kvmlet_vmm::devices::virtio::net::{Port, WithMetadata};
use kvmlet_vmm::vm::{Endpoint, FarEnds, network_specs};
use std::sync::Arc;

/// Sets up the host's side of a configuration's interfaces, in their order, and says in the log what will not
/// work.
///
/// # Errors
/// Names what is not available.
pub fn set_up_networks(
    config: &VmConfig,
    runtime: Option<&RuntimeDirectory>,
) -> Result<Vec<Network>, Error> {
    let mut networks = Vec::new();
    for net in &config.nets {
        let network = Network::set_up(net, runtime)?;
        for warning in network.warnings() {
            log::warn!("{warning}");
        }
        networks.push(network);
    }
    Ok(networks)
}

/// What a VM takes of networks. It may live in another process than they do.
pub fn endpoints(networks: &[Network]) -> Vec<Endpoint> {
    let endpoint = |network: &Network| {
        let queues = network.queues().iter().cloned();
        let socket = network.socket().cloned();
        let ports = queues
            .map(|queue| queue as Arc<dyn Port>)
            .chain(socket.map(|socket| socket as Arc<dyn Port>));
        let port = |port| match network.metadata().cloned() {
            Some(metadata) => Arc::new(WithMetadata::new(port, metadata)),
            None => port,
        };
        Endpoint {
            ports: ports.map(port).collect(),
            interface: network.interface().clone(),
        }
    };
    networks.iter().map(endpoint).collect()
}

/// What a guest is told of its interfaces, as on its kernel command line.
pub(crate) fn interfaces(networks: &[Network]) -> Vec<String> {
    let specs = network_specs(&endpoints(networks));
    specs.iter().map(NetworkSpec::parameter_value).collect()
}

/// What a VM takes of all that its devices are connected to. It may live in another process.
pub fn far_ends(networks: &[Network], sockets: Option<&Sockets>) -> FarEnds {
    FarEnds {
        interfaces: endpoints(networks),
        sockets: sockets.and_then(Sockets::far_end),
    }
}
