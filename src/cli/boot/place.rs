//! Where a VM that is suspended was in the network, which it comes back to where that is still free: what knows its addresses and
//! ports finds it there.

use kvmlet_host::net::is_free;
use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_spec::{
    HostAddress, HostPort, Net, NetworkSpec, PortMapping, Protocol, Subnet, VmConfig,
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

/// What its interfaces and ports were, as it tells that itself.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Place {
    pub interfaces: Vec<String>,
    pub published: Vec<String>,
}

impl Place {
    /// As it is noted in a VM's file. Nothing is said by any other note.
    pub fn of(note: Option<&[u8]>) -> Self {
        let place = note.and_then(|note| serde_json::from_slice(note).ok());
        place.unwrap_or_default()
    }

    /// Has a VM come back there, as far as it was the host that had chosen, and nobody else is there now.
    pub fn put(&self, config: &mut VmConfig) {
        let Ok(runtime) = RuntimeDirectory::of_user() else {
            return;
        };
        for (number, net) in config.nets.iter_mut().enumerate() {
            let Some(subnet) = self.subnet(number).filter(|_| net.tap.is_none()) else {
                continue;
            };
            if net.subnet.is_none() && is_free(subnet, &runtime) {
                net.subnet = Some(subnet);
            }
            self.put_ports(net);
        }
    }

    fn subnet(&self, number: usize) -> Option<Subnet> {
        let name = format!("eth{number}");
        let specs = self.interfaces.iter();
        let mut specs = specs.filter_map(|text| NetworkSpec::from_parameter_value(text).ok());
        let spec = specs.find(|spec| spec.interface == name)?;
        let IpAddr::V4(address) = spec.address else {
            return None;
        };
        let mask = u32::MAX.checked_shl(32_u32.checked_sub(spec.prefix.into())?)?;
        Subnet::new(Ipv4Addr::from_bits(address.to_bits() & mask), spec.prefix)
    }

    fn put_ports(&self, net: &mut Net) {
        for wanted in &mut net.publish {
            if wanted.host != HostPort::Any {
                continue;
            }
            let published = self.published.iter();
            let mut published = published.filter_map(|text| text.parse::<PortMapping>().ok());
            let was = published.find(|was| {
                (was.guest, was.protocol, was.address)
                    == (wanted.guest, wanted.protocol, wanted.address)
            });
            if let Some(was) = was.filter(can_be_had) {
                wanted.host = was.host;
            }
        }
    }
}

/// Does nobody listen there?
fn can_be_had(mapping: &PortMapping) -> bool {
    let HostPort::Fixed(port) = mapping.host else {
        return false;
    };
    let free = |address: IpAddr| match mapping.protocol {
        Protocol::Tcp => TcpListener::bind((address, port.get())).is_ok(),
        Protocol::Udp => UdpSocket::bind((address, port.get())).is_ok(),
    };
    let address = match mapping.address {
        HostAddress::Ip(address) => address,
        HostAddress::All => Ipv4Addr::UNSPECIFIED.into(),
        HostAddress::Localhost => Ipv4Addr::LOCALHOST.into(),
    };
    free(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_of_an_interface_says_its_network() {
        let place = Place {
            interfaces: vec!["eth1,10.107.0.6/30,gateway=10.107.0.5,dns=10.107.0.5".into()],
            published: Vec::new(),
        };
        assert_eq!(place.subnet(1), "10.107.0.4/30".parse().ok());
        assert_eq!(place.subnet(0), None);
        let note = serde_json::to_vec(&place).unwrap();
        assert_eq!(Place::of(Some(&note)).interfaces, place.interfaces);
        for note in [None, Some(&b"0123abcd"[..]), Some(b"")] {
            assert_eq!(Place::of(note).interfaces, [""; 0]);
        }
    }

    #[test]
    fn ports_that_the_host_has_chosen_are_those_that_it_had_if_nobody_has_them() {
        let mut was = 0;
        if let Ok(listener) = TcpListener::bind("127.0.0.1:0") {
            was = listener.local_addr().unwrap().port();
        }
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = busy.local_addr().unwrap().port();
        let place = Place {
            interfaces: Vec::new(),
            published: vec![
                format!("127.0.0.1:{was}:80/tcp"),
                format!("127.0.0.1:{port}:81/tcp"),
                "127.0.0.1:9:7/tcp".into(),
            ],
        };
        let mut net = Net::default();
        for text in [
            "127.0.0.1::80",
            "127.0.0.1::81",
            "127.0.0.1:5:7",
            "127.0.0.1::82",
        ] {
            net.publish.push(text.parse().unwrap());
        }
        place.put_ports(&mut net);
        let hosts: Vec<_> = net.publish.iter().map(|mapping| mapping.host).collect();
        let fixed = |port: u16| HostPort::Fixed(port.try_into().unwrap());
        assert_eq!(hosts, [fixed(was), HostPort::Any, fixed(5), HostPort::Any]);
    }
}
