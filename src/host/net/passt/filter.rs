//! Which frames pass between a guest and passt.
//!
//! passt connects to wherever a packet goes, as the user who has started it, this host's loopback included, and it
//! takes a guest's word for its address. So what [rules](super::super::rules) do for a tap is done here, before passt
//! sees a frame: a guest has its own address only, and reaches what its [`Egress`] says, of this host nothing but names.
//! It answers whoever has reached it. Others reach published ports.

use super::flows::{Callers, Flow, Flows};
use super::packet::{Content, ICMP, Packet, UDP};
use super::routes::Routes;
use crate::config::Egress;
use crate::net::table::is_private;
use std::net::Ipv4Addr;
use std::time::Instant;

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
    /// Programs on this host that have come by UDP.
    callers: Callers,
    routes: R,
}

impl<R: Routes> Filter<R> {
    pub fn new(policy: Policy, routes: R) -> Self {
        Self {
            policy,
            flows: Flows::default(),
            callers: Callers::new(Instant::now()),
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
        let (flow, opens) = match content {
            Content::Ports {
                protocol,
                from,
                to,
                opens,
            } => (flow(protocol, destination, to, from), opens),
            Content::Echo(number) => (flow(ICMP, destination, 0, number), false),
            Content::Report => return false,
        };
        if source != guest {
            return false;
        }
        // A connection of its own is no answer, even to where somebody has come from: a program of this host has that
        // port by now, maybe.
        if !opens && self.goes_on(&flow) {
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
            Content::Ports {
                protocol, from, to, ..
            } => flow(protocol, source, from, to),
            Content::Echo(number) => flow(ICMP, source, 0, number),
            Content::Report => return true,
        };
        if self.flows.know(&flow) {
            return true;
        }
        let wanted = (flow.protocol, flow.guest_port);
        let may = self.policy.published.contains(&wanted);
        match may {
            false => {}
            true if self.is_callers(&flow) => self.callers.heard(flow, Instant::now()),
            // Its answers go wherever that is.
            true => self.flows.add(flow),
        }
        may
    }

    /// Is it one that the guest may have its part in, whatever it reaches by itself?
    fn goes_on(&mut self, flow: &Flow) -> bool {
        match self.is_callers(flow) {
            true => self.callers.has(flow, Instant::now()),
            false => self.flows.know(flow),
        }
    }

    /// Did it begin with a program on this host, if with anybody else than the guest? By TCP the end of a connection is
    /// its end for passt as well.
    fn is_callers(&self, flow: &Flow) -> bool {
        let published = self.policy.published.contains(&(UDP, flow.guest_port));
        flow.protocol == UDP && flow.remote == self.policy.gateway && published
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
