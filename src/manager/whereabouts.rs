//! Where a VM that is suspended was in the network, which it comes back to where that is still free: what knows its addresses and
//! ports finds it there.

use crate::Asked;
use kvmlet_spec::{HostAddress, HostPort, NetworkSpec, PortMapping, Protocol, Subnet};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

/// What its interfaces and ports were, as it tells that itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// Its interfaces, as its guest was told.
    pub interfaces: Vec<String>,
    /// Which ports of the host led to it.
    pub published: Vec<String>,
}

impl Whereabouts {
    /// As they are noted in a VM's file. Nothing is said by any other note.
    pub fn of(note: Option<&[u8]>) -> Self {
        let noted = note.and_then(|note| serde_json::from_slice(note).ok());
        noted.unwrap_or_default()
    }

    /// How the supervisor of an instance is told that its interfaces are there again; nothing where it has none.
    pub fn as_flag(&self, asked: &Asked, is_free: &dyn Fn(Subnet) -> bool) -> Option<[String; 2]> {
        let mut nets = asked.config.get("nets")?.clone();
        self.put(&mut nets, is_free);
        Some(["--nets".into(), nets.to_string()])
    }

    /// The interfaces of a configuration, there again, as far as it was the host that had chosen, and nobody else is there now.
    fn put(&self, nets: &mut Value, is_free: &dyn Fn(Subnet) -> bool) {
        let nets = nets.as_array_mut().into_iter().flatten().enumerate();
        for (number, net) in nets {
            let is_chosen = |net: &Value, key| net.get(key).is_none_or(Value::is_null);
            if !is_chosen(net, "tap") {
                continue;
            }
            let subnet = self.subnet(number).filter(|_| is_chosen(net, "subnet"));
            if let Some(subnet) = subnet.filter(|subnet| is_free(*subnet)) {
                net["subnet"] = json!(subnet.to_string());
            }
            let ports = net.get_mut("publish").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten() {
                if let Some(was) = self.port(port) {
                    *port = json!(was.to_string());
                }
            }
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

    /// The port that it had, of one that was left to the host.
    fn port(&self, wanted: &Value) -> Option<PortMapping> {
        let wanted: PortMapping = wanted.as_str()?.parse().ok()?;
        if wanted.host != HostPort::Any {
            return None;
        }
        let published = self.published.iter();
        let mut published = published.filter_map(|text| text.parse::<PortMapping>().ok());
        let is_it = |was: &PortMapping| {
            let [was, wanted] = [was, &wanted].map(|it| (it.guest, it.protocol, it.address));
            was == wanted
        };
        published.find(is_it).filter(can_be_had)
    }
}

/// Does nobody listen there?
fn can_be_had(mapping: &PortMapping) -> bool {
    let HostPort::Fixed(port) = mapping.host else {
        return false;
    };
    let address = match mapping.address {
        HostAddress::Ip(address) => address,
        HostAddress::All => Ipv4Addr::UNSPECIFIED.into(),
        HostAddress::Localhost => Ipv4Addr::LOCALHOST.into(),
    };
    match mapping.protocol {
        Protocol::Tcp => TcpListener::bind((address, port.get())).is_ok(),
        Protocol::Udp => UdpSocket::bind((address, port.get())).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_comes_back_to_what_nobody_has() {
        let (mut was, busy) = (0, TcpListener::bind("127.0.0.1:0").unwrap());
        if let Ok(listener) = TcpListener::bind("127.0.0.1:0") {
            was = listener.local_addr().unwrap().port();
        }
        let taken = busy.local_addr().unwrap().port();
        let place = Whereabouts {
            interfaces: vec!["eth1,10.107.0.6/30,gateway=10.107.0.5,dns=10.107.0.5".into()],
            published: vec![
                format!("127.0.0.1:{was}:80/tcp"),
                format!("127.0.0.1:{taken}:81/tcp"),
                "127.0.0.1:9:7/tcp".into(),
            ],
        };
        let ports = [
            "127.0.0.1::80",
            "127.0.0.1::81",
            "127.0.0.1:5:7",
            "127.0.0.1::82",
        ];
        let asked = json!([{ "tap": "t" }, { "publish": ports }, {}]);
        let mut nets = asked.clone();
        place.put(&mut nets, &|_| true);
        assert_eq!((&nets[0], &nets[2]), (&asked[0], &asked[2]));
        assert_eq!(nets[1]["subnet"], "10.107.0.4/30");
        let first: PortMapping = nets[1]["publish"][0].as_str().unwrap().parse().unwrap();
        assert_eq!(first.host, HostPort::Fixed(was.try_into().unwrap()));
        for place in 1..ports.len() {
            assert_eq!(nets[1]["publish"][place], ports[place]);
        }
        // What was said, and what others have, stays.
        let mut nets = json!([{}, { "subnet": "10.1.2.0/30" }]);
        place.put(&mut nets, &|_| true);
        assert_eq!(nets[1]["subnet"], "10.1.2.0/30");
        let mut nets = json!([{}, {}]);
        place.put(&mut nets, &|_| false);
        assert_eq!(nets, json!([{}, {}]));
        let mut nets = Value::Null;
        place.put(&mut nets, &|_| true);
        assert_eq!(nets, Value::Null);
    }

    #[test]
    fn any_other_note_says_nothing() {
        let noted = Whereabouts {
            interfaces: vec!["eth0".into()],
            published: Vec::new(),
        };
        let note = serde_json::to_vec(&noted).unwrap();
        assert_eq!(Whereabouts::of(Some(&note)), noted);
        for note in [None, Some(&b"0123abcd"[..]), Some(b"")] {
            assert_eq!(Whereabouts::of(note), Whereabouts::default());
        }
    }
}
