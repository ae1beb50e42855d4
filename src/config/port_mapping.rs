//! Published ports: `-p 8080:80`.

use super::Error;
use super::net::deserialize_from_text;
use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::str::FromStr;

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of the host that leads to one of the guest: `[HOSTADDR:]HOST:GUEST[/tcp|udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// The host's address at which it is reachable; all of them if none.
    pub address: Option<Ipv4Addr>,
    /// Port on the host.
    pub host: NonZeroU16,
    /// Port in the guest.
    pub guest: NonZeroU16,
    /// TCP if not said.
    pub protocol: Protocol,
}

impl PortMapping {
    /// Whether both want the same port of the host.
    pub fn collides_with(&self, other: &Self) -> bool {
        let addresses = (self.address, other.address);
        (self.host, self.protocol) == (other.host, other.protocol)
            && !matches!(addresses, (Some(one), Some(another)) if one != another)
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}:")?;
        }
        write!(f, "{}:{}/{}", self.host, self.guest, self.protocol.name())
    }
}

impl FromStr for PortMapping {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |why| Error::PortMapping {
            text: text.into(),
            why,
        };
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(invalid("the protocol is tcp or udp")),
        };
        let port = |text: &str| {
            text.parse()
                .map_err(|_| invalid("a port is a number from 1 to 65535"))
        };
        let Some((host, guest)) = ports.rsplit_once(':') else {
            return Err(invalid("the guest's port is missing"));
        };
        let (address, host) = match host.rsplit_once(':') {
            Some((address, host)) => {
                let address: Ipv4Addr = address
                    .parse()
                    .map_err(|_| invalid("the host's address is an IPv4 address"))?;
                (Some(address).filter(|a| !a.is_unspecified()), host)
            }
            None => (None, host),
        };
        Ok(Self {
            address,
            host: port(host)?,
            guest: port(guest)?,
            protocol,
        })
    }
}

deserialize_from_text!(PortMapping);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VmConfig;

    #[test]
    fn a_port_is_published_once() {
        let mapping = |text: &str| text.parse::<PortMapping>().unwrap();
        for (one, other, collide) in [
            ("80:80", "80:81", true),
            ("80:80", "80:80/udp", false),
            ("80:80", "81:80", false),
            ("80:80", "127.0.0.1:80:80", true),
            ("127.0.0.1:80:80", "127.0.0.1:80:81", true),
            ("127.0.0.2:80:80", "127.0.0.1:80:80", false),
        ] {
            assert_eq!(mapping(one).collides_with(&mapping(other)), collide);
            assert_eq!(mapping(other).collides_with(&mapping(one)), collide);
        }
        let config = VmConfig::builder().kernel("k");
        let twice = config.publish(mapping("80:80")).publish(mapping("80:81"));
        let error = twice.build().unwrap_err().to_string();
        assert!(
            error.contains("port 80:81/tcp is published twice"),
            "{error}"
        );
    }

    #[test]
    fn ports_parse_like_dockers() {
        for (text, printed) in [
            ("8080:80", "8080:80/tcp"),
            ("53:5353/udp", "53:5353/udp"),
            ("127.0.0.1:8080:80/tcp", "127.0.0.1:8080:80/tcp"),
            ("0.0.0.0:1:2", "1:2/tcp"),
        ] {
            let mapping: PortMapping = text.parse().unwrap();
            assert_eq!(mapping.to_string(), printed);
        }
        for (text, expected) in [
            ("8080", "the guest's port is missing"),
            ("0:80", "from 1 to 65535"),
            ("8080:65536", "from 1 to 65535"),
            (":80", "from 1 to 65535"),
            ("8080:80/sctp", "tcp or udp"),
            ("localhost:8080:80", "an IPv4 address"),
            ("[::1]:8080:80", "an IPv4 address"),
        ] {
            let error = text.parse::<PortMapping>().unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains(text),
                "{text}: {error}"
            );
        }
    }
}
