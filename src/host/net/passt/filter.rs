//! Which frames pass between a guest and passt.
//!
//! passt connects to wherever a packet goes, as the user who has started it, this host's loopback included, and it
//! takes a guest's word for its address. So what [rules](super::super::rules) do for a tap is done here, before passt
//! sees a frame: a guest has its own address only, and reaches what its [`Egress`] says, of this host nothing but names.
//! It answers whoever has reached it. Others reach published ports.

use super::flows::{Flow, Flows};
use super::packet::{Content, ICMP, Packet, UDP};
use super::routes::Routes;
use crate::config::Egress;
use crate::net::table::is_private;
use std::net::Ipv4Addr;

/// Where passt answers questions about names.
const DNS: u16 = 53;

/// What a guest is, and may.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub guest: Ipv4Addr,
    pub gateway: Ipv4Addr,
    pub egress: Egress,
    /// Whether the gateway answers questions about names.
    pub names: bool,
    /// Ports of the guest that others may reach, each with the number of its protocol.
    pub published: Vec<(u8, u16)>,
}

/// The policy, and what has passed by it.
pub(super) struct Filter<R> {
    policy: Policy,
    flows: Flows,
    routes: R,
}

impl<R: Routes> Filter<R> {
    pub fn new(policy: Policy, routes: R) -> Self {
        Self {
            policy,
            flows: Flows::default(),
            routes,
        }
    }

    pub fn routes(&self) -> &R {
        &self.routes
    }

    /// May the guest send this?
    pub fn may_leave(&mut self, frame: &[u8]) -> bool {
        let guest = self.policy.guest;
        let (source, destination, content) = match Packet::parse(frame) {
            // A host that looks whether its address is another's has none yet (RFC 5227).
            Some(Packet::Arp { sender }) => return sender == guest || sender.is_unspecified(),
            Some(Packet::Ip {
                source,
                destination,
                content,
            }) => (source, destination, content),
            None => return false,
        };
        let flow = match content {
            Content::Ports { protocol, from, to } => flow(protocol, destination, to, from),
            Content::Echo(number) => flow(ICMP, destination, 0, number),
            Content::Report => return false,
        };
        if source != guest {
            return false;
        }
        if self.flows.know(&flow) {
            return true;
        }
        let may = match destination == self.policy.gateway {
            true => self.policy.names && (flow.protocol, flow.remote_port) == (UDP, DNS),
            false => self.reaches(destination),
        };
        if may {
            self.flows.add(flow);
        }
        may
    }

    /// May the guest receive this?
    pub fn may_arrive(&mut self, frame: &[u8]) -> bool {
        let (source, destination, content) = match Packet::parse(frame) {
            Some(Packet::Arp { .. }) => return true,
            Some(Packet::Ip {
                source,
                destination,
                content,
            }) => (source, destination, content),
            None => return false,
        };
        if destination != self.policy.guest {
            return false;
        }
        let flow = match content {
            Content::Ports { protocol, from, to } => flow(protocol, source, from, to),
            Content::Echo(number) => flow(ICMP, source, 0, number),
            Content::Report => return true,
        };
        if self.flows.know(&flow) {
            return true;
        }
        let wanted = (flow.protocol, flow.guest_port);
        let may = self.policy.published.contains(&wanted);
        if may {
            // Its answers go wherever that is.
            self.flows.add(flow);
        }
        may
    }

    fn reaches(&mut self, destination: Ipv4Addr) -> bool {
        let may = match self.policy.egress {
            Egress::None => false,
            Egress::Internet => !is_private(destination),
            Egress::All => true,
        };
        may && self.routes.lead_elsewhere(destination)
    }
}

fn flow(protocol: u8, remote: Ipv4Addr, remote_port: u16, guest_port: u16) -> Flow {
    Flow {
        protocol,
        remote,
        remote_port,
        guest_port,
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
