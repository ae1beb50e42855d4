//! Ports that an image says it listens on. Ranges stay ranges: a word is enough to name all ports that there are, and a
//! configuration has room for thousands of words.

use std::ops::RangeInclusive;

/// Neighbouring ports that an image says it listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposedPorts {
    /// Of which protocol.
    pub protocol: Protocol,
    /// Their numbers, without 0.
    pub numbers: RangeInclusive<u16>,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl ExposedPorts {
    /// `80`, `80/tcp`, `8000-8010/udp`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return None,
        };
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let number = |text: &str| -> Option<u16> {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|port| is_number && *port > 0)
        };
        let numbers = number(first)?..=number(last)?;
        (!numbers.is_empty()).then_some(Self { protocol, numbers })
    }

    /// Each port once, in the order of protocols and numbers, with at least one that is not there between two ranges.
    pub(super) fn merge(mut all: Vec<Self>) -> Vec<Self> {
        all.sort_unstable_by_key(|ports| (ports.protocol, *ports.numbers.start()));
        let mut merged: Vec<Self> = Vec::new();
        for ports in all {
            match merged.last_mut() {
                Some(last)
                    if last.protocol == ports.protocol
                        && *ports.numbers.start() <= last.numbers.end().saturating_add(1) =>
                {
                    let end = *last.numbers.end().max(ports.numbers.end());
                    last.numbers = *last.numbers.start()..=end;
                }
                _ => merged.push(ports),
            }
        }
        merged
    }
}
