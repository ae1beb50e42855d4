//! Which packets of guests may pass, as one table of nf_tables.
//!
//! Each owner of guests (a runtime directory) has a table of its own, so none can take down another's. It has the
//! same few rules for any number of guests, and sets and maps whose elements are theirs. A change is one transaction:
//! it is made as a whole or not at all.

use super::nft::{Connection, Expression, Header, Meta, Original, Register, Verdict};

/// What the elements of a set or map are made of.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// By its name.
    Interface,
    /// By its number.
    Index,
    Address,
    Protocol,
    Port,
}

impl Part {
    /// The number by which the program nft shows it (`enum datatypes` in its source), and its size in registers.
    pub const fn shape(self) -> (u32, u32) {
        match self {
            Part::Interface => (41, 16),
            Part::Index => (20, 4),
            Part::Address => (7, 4),
            Part::Protocol => (12, 4),
            Part::Port => (13, 4),
        }
    }
}

pub(super) struct Set {
    pub name: &'static str,
    pub key: &'static [Part],
    pub data: &'static [Part],
    pub interval: bool,
}

const fn set(name: &'static str, key: &'static [Part]) -> Set {
    Set {
        name,
        key,
        data: &[],
        interval: false,
    }
}

/// Guests' interfaces.
pub(super) const TAPS: &str = "taps";
/// Those of guests that reach no private network, and that reach nothing.
pub(super) const GUARDED: &str = "guarded";
pub(super) const CLOSED: &str = "closed";
/// Interfaces that others come in on to published ports.
pub(super) const ROUTED: &str = "routed";
/// Interfaces that forward for guests' sake only.
pub(super) const BORROWED: &str = "borrowed";
/// Which guest has which address, on its interface.
pub(super) const GUESTS: &str = "guests";
pub(super) const ADDRESSES: &str = "addresses";
/// Where guests ask for names.
pub(super) const RESOLVERS: &str = "resolvers";
/// Addresses that are nobody's in the Internet.
pub(super) const PRIVATE: &str = "private";
/// Published ports, at any and at one address of the host.
pub(super) const PUBLISHED: &str = "published";
pub(super) const PUBLISHED_AT: &str = "published_at";
/// The same ports without where they lead: Linux 6.1 refuses a rule that looks up a map and leaves what it finds.
pub(super) const OPEN: &str = "open";
pub(super) const OPEN_AT: &str = "open_at";

/// The interfaces of guests; the tables of both families have this.
pub(super) const SET_OF_TAPS: Set = set(TAPS, &[Part::Index]);

pub(super) const SETS: [Set; 13] = [
    SET_OF_TAPS,
    set(GUARDED, &[Part::Index]),
    set(CLOSED, &[Part::Index]),
    set(ROUTED, &[Part::Interface]),
    set(BORROWED, &[Part::Interface]),
    set(GUESTS, &[Part::Index, Part::Address]),
    set(ADDRESSES, &[Part::Address]),
    set(RESOLVERS, &[Part::Index, Part::Protocol, Part::Port]),
    Set {
        interval: true,
        ..set(PRIVATE, &[Part::Address])
    },
    Set {
        data: &[Part::Address, Part::Port],
        ..set(PUBLISHED, &[Part::Protocol, Part::Port])
    },
    Set {
        data: &[Part::Address, Part::Port],
        ..set(PUBLISHED_AT, &[Part::Address, Part::Protocol, Part::Port])
    },
    set(OPEN, &[Part::Protocol, Part::Port]),
    set(OPEN_AT, &[Part::Address, Part::Protocol, Part::Port]),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    Prerouting,
    Postrouting,
    Forward,
    Input,
    Output,
}

impl Chain {
    /// Those of a table of IPv4.
    pub const ALL: [Chain; 4] = [
        Chain::Prerouting,
        Chain::Postrouting,
        Chain::Forward,
        Chain::Input,
    ];
    /// Those of a table of IPv6.
    pub const OF_IPV6: [Chain; 3] = [Chain::Forward, Chain::Input, Chain::Output];

    /// Name, type, hook (enum nf_inet_hooks) and priority (enum nf_ip_hook_priorities).
    pub fn base(self) -> (&'static str, &'static str, u32, i32) {
        match self {
            Chain::Prerouting => ("prerouting", "nat", 0, -100),
            Chain::Postrouting => ("postrouting", "nat", 4, 100),
            Chain::Forward => ("forward", "filter", 2, 0),
            Chain::Input => ("input", "filter", 1, 0),
            Chain::Output => ("output", "filter", 3, 0),
        }
    }
}

/// How many rules the tables have: fewer are tables that somebody has tampered with.
pub(super) fn count(ipv6: bool) -> usize {
    rules().len() + if ipv6 { rules_of_ipv6().len() } else { 0 }
}

/// Between host and guest there is no IPv6: a guest's addresses in it would be nobody's to check. (The setting of its
/// interface may be read-only, or switched on again by others.)
pub(super) fn rules_of_ipv6() -> Vec<(Chain, Vec<Expression>)> {
    let at = |load: Expression| {
        vec![
            load,
            Expression::In(Register(0), TAPS),
            Expression::Decide(Verdict::Drop),
        ]
    };
    vec![
        (Chain::Input, at(input(0))),
        (Chain::Forward, at(input(0))),
        (Chain::Forward, at(output(0))),
        (Chain::Output, at(output(0))),
    ]
}

/// All rules, in their order. Those of `forward` see the packets of all interfaces, and let pass or drop those of
/// guests only, but for `borrowed`.
pub(super) fn rules() -> Vec<(Chain, Vec<Expression>)> {
    use Chain::*;
    use Verdict::*;
    let no = Register;
    let accept = || Expression::Decide(Accept);
    let drop = || Expression::Decide(Drop);
    let from = |set| [input(0), Expression::In(no(0), set)];
    let to = |set| [output(0), Expression::In(no(0), set)];
    let from_named = |set| [input_name(0), Expression::In(no(0), set)];
    let published = |map, mut key: Vec<Expression>| {
        // At an address of the host's only.
        let mut rule: Vec<Expression> = from_named(ROUTED).into();
        rule.push(Expression::LoadDestinationType(no(0)));
        rule.push(Expression::Equal(no(0), RTN_LOCAL.to_ne_bytes().into()));
        rule.append(&mut key);
        rule.extend([Expression::Map(no(0), map), Expression::DestinationNat]);
        (Prerouting, rule)
    };
    let at_address = vec![address_at(DESTINATION, 0), protocol(1), port(2)];
    let spoofed = || {
        let mut rule: Vec<Expression> = from(TAPS).into();
        // Behind the interface's number.
        rule.extend([
            address_at(SOURCE, 1),
            Expression::NotIn(no(0), GUESTS),
            drop(),
        ]);
        rule
    };
    let then = |first: [Expression; 2], rest: Vec<Expression>| [first.to_vec(), rest].concat();
    let ping = vec![
        protocol(0),
        Expression::Equal(no(0), vec![libc::IPPROTO_ICMP as u8]),
        Expression::LoadPayload(Header::Transport, 0, 1, no(0)),
        Expression::Equal(no(0), vec![ECHO_REQUEST]),
        accept(),
    ];
    let name_service = vec![
        input(0),
        protocol(1),
        port(2),
        Expression::In(no(0), RESOLVERS),
        accept(),
    ];
    let others_only = vec![
        output_name(0),
        Expression::NotEqual(no(0), super::record::TAP_PREFIX.into()),
        drop(),
    ];
    let at_original = vec![original_address(0), protocol(1), original_port(2)];
    let to_private = vec![
        address_at(DESTINATION, 0),
        Expression::In(no(0), PRIVATE),
        drop(),
    ];
    vec![
        published(PUBLISHED_AT, at_address),
        published(PUBLISHED, vec![protocol(0), port(1)]),
        (
            Postrouting,
            vec![
                address_at(SOURCE, 0),
                Expression::In(no(0), ADDRESSES),
                Expression::Masquerade,
            ],
        ),
        (Forward, spoofed()),
        (Forward, then(from(TAPS), known_connection(accept()))),
        (Forward, then(from(CLOSED), vec![drop()])),
        // A connection that was led to a guest stays known when the guest has ended: its packets are for nobody then,
        // and not for the next guest with that address.
        (
            Forward,
            then(to(TAPS), led_by(OPEN, vec![protocol(0), original_port(1)])),
        ),
        (Forward, then(to(TAPS), led_by(OPEN_AT, at_original))),
        (Forward, then(to(TAPS), led_here(drop()))),
        (Forward, then(to(TAPS), known_connection(accept()))),
        (Forward, then(to(TAPS), vec![drop()])),
        // A published port of another owner's guest.
        (Forward, then(from(GUARDED), led_here(accept()))),
        (Forward, then(from(GUARDED), to_private)),
        // What came in here went nowhere before guests needed it.
        (Forward, then(from_named(BORROWED), others_only)),
        (Input, spoofed()),
        (Input, then(from(TAPS), known_connection(accept()))),
        (Input, then(from(TAPS), ping)),
        (Input, name_service),
        (Input, then(from(TAPS), vec![drop()])),
    ]
}

/// linux/rtnetlink.h; in a register it is a number of the machine's.
const RTN_LOCAL: u32 = 2;
/// Offsets in a header of IPv4.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// Type of an ICMP message.
const ECHO_REQUEST: u8 = 8;

fn input(to: u8) -> Expression {
    Expression::LoadMeta(Meta::Input, Register(to))
}

fn output(to: u8) -> Expression {
    Expression::LoadMeta(Meta::Output, Register(to))
}

fn input_name(to: u8) -> Expression {
    Expression::LoadMeta(Meta::InputName, Register(to))
}

fn output_name(to: u8) -> Expression {
    Expression::LoadMeta(Meta::OutputName, Register(to))
}

fn protocol(to: u8) -> Expression {
    Expression::LoadMeta(Meta::Protocol, Register(to))
}

/// The destination's port, of TCP and of UDP.
fn port(to: u8) -> Expression {
    Expression::LoadPayload(Header::Transport, 2, 2, Register(to))
}

fn address_at(offset: u32, to: u8) -> Expression {
    Expression::LoadPayload(Header::Network, offset, 4, Register(to))
}

/// Of a connection that was let pass before, or about one (established, related).
fn known_connection(then: Expression) -> Vec<Expression> {
    connection_has(Connection::State, 2 | 4, then)
}

/// Of a connection that a rule has led elsewhere than it wanted (IPS_DST_NAT).
fn led_here(then: Expression) -> Vec<Expression> {
    connection_has(Connection::Status, 1 << 5, then)
}

/// As [`led_here`], by a port that is published now; it is accepted.
fn led_by(set: &'static str, key: Vec<Expression>) -> Vec<Expression> {
    let mut rule = led_here(Expression::Decide(Verdict::Accept));
    rule.pop();
    rule.extend(key);
    rule.extend([
        Expression::In(Register(0), set),
        Expression::Decide(Verdict::Accept),
    ]);
    rule
}

fn original_port(to: u8) -> Expression {
    Expression::LoadOriginal(Original::DestinationPort, Register(to))
}

fn original_address(to: u8) -> Expression {
    Expression::LoadOriginal(Original::DestinationAddress, Register(to))
}

fn connection_has(key: Connection, bits: u32, then: Expression) -> Vec<Expression> {
    let register = Register(0);
    vec![
        Expression::LoadConnection(key, register),
        Expression::Mask(register, bits),
        Expression::NotEqual(register, vec![0; 4]),
        then,
    ]
}
