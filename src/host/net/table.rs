//! The [rules](super::rules) of one owner as a table of nf_tables, and its guests' elements in it.

use super::nft::{
    Attribute, Batch, Expression, IPV4, IPV6, Kind, Socket, bytes, data, nest, number, text,
};
use super::record::Record;
use super::rules::{
    ADDRESSES, BORROWED, CLOSED, Chain, GUARDED, GUESTS, OPEN, OPEN_AT, PRIVATE, PUBLISHED,
    PUBLISHED_AT, Part, RESOLVERS, ROUTED, SET_OF_TAPS, SETS, Set, TAPS, rules, rules_of_ipv6,
};
use crate::config::{Egress, Protocol, Subnet};
use kvmlet_sys::directory::Directory;
use std::net::Ipv4Addr;
use std::path::Path;

/// What the names of all of kvmlet's tables begin with.
pub(super) const TABLE_PREFIX: &str = "kvmlet-";

/// First and last address, and first of the next: what the registries keep from the Internet (RFC 6890) but the
/// networks for documentation, those of providers' own (RFC 6598), and all from 224.0.0.0 on.
const PRIVATE_RANGES: [([u8; 4], Option<[u8; 4]>); 10] = [
    ([0, 0, 0, 0], Some([1, 0, 0, 0])),
    ([10, 0, 0, 0], Some([11, 0, 0, 0])),
    ([100, 64, 0, 0], Some([100, 128, 0, 0])),
    ([127, 0, 0, 0], Some([128, 0, 0, 0])),
    ([169, 254, 0, 0], Some([169, 255, 0, 0])),
    ([172, 16, 0, 0], Some([172, 32, 0, 0])),
    ([192, 0, 0, 0], Some([192, 0, 1, 0])),
    ([192, 168, 0, 0], Some([192, 169, 0, 0])),
    ([198, 18, 0, 0], Some([198, 20, 0, 0])),
    ([224, 0, 0, 0], None),
];

/// Is it none of the Internet's?
pub(super) fn is_private(address: Ipv4Addr) -> bool {
    let address = address.octets();
    let mut ranges = PRIVATE_RANGES.iter();
    ranges.any(|(first, next)| *first <= address && next.is_none_or(|next| address < next))
}

/// The table of one owner, and the one of the same name that keeps IPv6 from its guests.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub name: String,
    /// Whether this host has IPv6.
    pub ipv6: bool,
}

/// Attributes of tables, chains, rules and sets that are all number 1: the table's name.
pub(super) const NFTA_TABLE: u16 = 1;
/// Of a message about elements: those.
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

impl Table {
    /// The table of whoever has this directory of leases. No two directories have the same number on the same device,
    /// and all who see this network namespace see the same numbers.
    pub fn of(directory: &Directory) -> std::io::Result<Self> {
        let stat = directory.stat()?;
        Ok(Self::named(&format!("{:x}-{:x}", stat.st_dev, stat.st_ino)))
    }

    /// One with a name of its own.
    pub fn named(name: &str) -> Self {
        Self {
            name: format!("{TABLE_PREFIX}{name}"),
            ipv6: Path::new("/proc/sys/net/ipv6").exists(),
        }
    }

    pub fn attribute(&self) -> Attribute {
        text(NFTA_TABLE, &self.name)
    }

    /// The families that it has a table in.
    pub fn families(&self) -> impl Iterator<Item = u8> + use<> {
        [Some(IPV4), self.ipv6.then_some(IPV6)]
            .into_iter()
            .flatten()
    }

    /// Those of other owners in this network namespace.
    pub fn others(&self, socket: &mut Socket) -> Vec<Self> {
        let mut others = Vec::new();
        let listed = socket.list(Kind::GetTable, IPV4, &[], |found| {
            let name = found.text(NFTA_TABLE).unwrap_or_default();
            if name.starts_with(TABLE_PREFIX) && name != self.name {
                let name = name.into();
                others.push(Self { name, ipv6: false });
            }
        });
        if let Err(error) = listed {
            log::debug!("the tables of other owners are unknown: {error}");
        }
        others
    }

    /// Takes it away, with all in it.
    pub fn delete(&self, batch: &mut Batch) {
        for family in self.families() {
            // What is not there cannot be deleted.
            batch.push(family, Kind::NewTable, NLM_F_CREATE, &[self.attribute()]);
            batch.push(family, Kind::DelTable, 0, &[self.attribute()]);
        }
    }

    /// Makes it anew, without guests.
    pub fn create(&self, batch: &mut Batch) {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        for family in self.families() {
            batch.push(family, Kind::NewTable, flags, &[self.attribute()]);
        }
        for (id, set) in (1..).zip(&SETS) {
            self.create_set(batch, IPV4, id, set);
        }
        self.fill_private(batch);
        self.create_chains(batch, IPV4, &Chain::ALL, &rules());
        if self.ipv6 {
            let id = SETS.len() as u32 + 1;
            self.create_set(batch, IPV6, id, &SET_OF_TAPS);
            self.create_chains(batch, IPV6, &Chain::OF_IPV6, &rules_of_ipv6());
        }
    }

    fn create_chains(
        &self,
        batch: &mut Batch,
        family: u8,
        chains: &[Chain],
        rules: &[(Chain, Vec<Expression>)],
    ) {
        for chain in chains {
            let (name, kind, hook, priority) = chain.base();
            const NFTA_CHAIN_NAME: u16 = 3;
            const NFTA_CHAIN_HOOK: u16 = 4;
            const NFTA_CHAIN_TYPE: u16 = 7;
            let hook = [number(1, hook), number(2, priority as u32)];
            let attributes = [
                self.attribute(),
                text(NFTA_CHAIN_NAME, name),
                nest(NFTA_CHAIN_HOOK, &hook),
                text(NFTA_CHAIN_TYPE, kind),
            ];
            let flags = NLM_F_CREATE | NLM_F_EXCL;
            batch.push(family, Kind::NewChain, flags, &attributes);
        }
        for (chain, rule) in rules {
            self.append(batch, family, *chain, rule);
        }
    }

    /// Adds a rule behind those of a chain.
    pub fn append(&self, batch: &mut Batch, family: u8, chain: Chain, rule: &[Expression]) {
        const NFTA_RULE_CHAIN: u16 = 2;
        const NFTA_RULE_EXPRESSIONS: u16 = 4;
        let expressions: Vec<Attribute> = rule.iter().map(Expression::attribute).collect();
        let attributes = [
            self.attribute(),
            text(NFTA_RULE_CHAIN, chain.base().0),
            nest(NFTA_RULE_EXPRESSIONS, &expressions),
        ];
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        batch.push(family, Kind::NewRule, flags, &attributes);
    }

    fn create_set(&self, batch: &mut Batch, family: u8, id: u32, set: &Set) {
        const NFT_SET_INTERVAL: u32 = 4;
        const NFT_SET_MAP: u32 = 8;
        // Parts of a key are told in six bits each.
        let shape = |parts: &[Part]| {
            let add = |(kind, all): (u32, u32), part: &Part| {
                let (of_part, size) = part.shape();
                (kind << 6 | of_part, all + size)
            };
            parts.iter().fold((0, 0), add)
        };
        let (key, key_bytes) = shape(set.key);
        let flags = match (set.interval, set.data) {
            (true, _) => NFT_SET_INTERVAL,
            (false, []) => 0,
            (false, _) => NFT_SET_MAP,
        };
        let mut attributes = vec![
            self.attribute(),
            text(2, set.name),
            number(3, flags),
            number(4, key),
            number(5, key_bytes),
        ];
        if !set.data.is_empty() {
            let (data, data_bytes) = shape(set.data);
            attributes.extend([number(6, data), number(7, data_bytes)]);
        }
        if let [part] = set.key {
            // How the program nft shows it: the key's byte order (NFTNL_UDATA_SET_KEYBYTEORDER), the machine's or not.
            let order: u32 = if matches!(part, Part::Interface | Part::Index) {
                1
            } else {
                2
            };
            let shown = [&[0, 4][..], &order.to_ne_bytes()].concat();
            attributes.push(bytes(13, shown));
        }
        // Elements of the same transaction could refer to it by this.
        attributes.push(number(10, id));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        batch.push(family, Kind::NewSet, flags, &attributes);
    }

    fn fill_private(&self, batch: &mut Batch) {
        const NFTA_SET_ELEM_FLAGS: u16 = 3;
        const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
        let mut elements = Vec::new();
        for (first, next) in PRIVATE_RANGES {
            elements.push(nest(1, &[data(1, &first)]));
            if let Some(next) = next {
                let end = number(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
                elements.push(nest(1, &[data(1, &next), end]));
            }
        }
        self.elements(batch, IPV4, Kind::NewElement, PRIVATE, &elements);
    }

    fn elements(
        &self,
        batch: &mut Batch,
        family: u8,
        kind: Kind,
        set: &str,
        elements: &[Attribute],
    ) {
        let flags = match kind {
            Kind::NewElement => NLM_F_CREATE,
            _ => 0,
        };
        let attributes = [self.attribute(), text(2, set), nest(3, elements)];
        batch.push(family, kind, flags, &attributes);
    }

    fn element(&self, batch: &mut Batch, kind: Kind, set: &str, key: &[u8], value: Option<&[u8]>) {
        let mut element = vec![data(1, key)];
        element.extend(value.map(|value| data(2, value)));
        self.elements(batch, IPV4, kind, set, &[nest(1, &element)]);
    }

    /// Opens the ways of one guest, and with `publishes` those to its published ports.
    pub fn open(&self, batch: &mut Batch, record: &Record, publishes: bool) {
        self.of_guest(batch, Kind::NewElement, record);
        if publishes {
            self.publish(batch, record);
        }
    }

    /// Leads clients elsewhere to its published ports.
    pub fn publish(&self, batch: &mut Batch, record: &Record) {
        self.published(batch, Kind::NewElement, record);
    }

    /// Closes all again.
    pub fn remove(&self, batch: &mut Batch, record: &Record) {
        // Whether it is there or not: added it is, and then can be deleted.
        self.open(batch, record, true);
        self.of_guest(batch, Kind::DelElement, record);
        self.published(batch, Kind::DelElement, record);
    }

    /// No rule leads to its published ports any more.
    pub fn unpublish(&self, batch: &mut Batch, record: &Record) {
        self.published(batch, Kind::DelElement, record);
    }

    /// What concerns a guest but its published ports.
    fn of_guest(&self, batch: &mut Batch, kind: Kind, record: &Record) {
        let tap = record.index.to_ne_bytes();
        let guest = record.guest.octets();
        self.element(batch, kind, TAPS, &tap, None);
        if self.ipv6 {
            let element = nest(1, &[data(1, &tap)]);
            self.elements(batch, IPV6, kind, TAPS, &[element]);
        }
        self.element(batch, kind, ROUTED, &name(&record.tap), None);
        match record.egress {
            Egress::None => self.element(batch, kind, CLOSED, &tap, None),
            Egress::Internet => self.element(batch, kind, GUARDED, &tap, None),
            Egress::All => {}
        }
        let owner = [&tap[..], &guest].concat();
        self.element(batch, kind, GUESTS, &owner, None);
        self.element(batch, kind, ADDRESSES, &guest, None);
        // The guest's questions about names go to the host's port 53 in its network, and arrive at ports that stand
        // for it.
        let (Some(dns), Ok(subnet)) = (record.dns, record.subnet.parse::<Subnet>()) else {
            return;
        };
        for (protocol, port) in [(Protocol::Udp, dns.udp), (Protocol::Tcp, dns.tcp)] {
            let key = [&tap[..], &transport(protocol, port)].concat();
            self.element(batch, kind, RESOLVERS, &key, None);
            let key = [&subnet.host().octets()[..], &transport(protocol, 53)].concat();
            let to = target(subnet.host(), port);
            self.element(batch, kind, PUBLISHED_AT, &key, Some(&to));
        }
    }

    fn published(&self, batch: &mut Batch, kind: Kind, record: &Record) {
        for port in record.forwarded() {
            let to = target(record.guest, port.guest.get());
            let key = transport(port.protocol, port.host.get());
            match port.at {
                None => {
                    self.element(batch, kind, PUBLISHED, &key, Some(&to));
                    self.element(batch, kind, OPEN, &key, None);
                }
                Some(address) => {
                    let key = [&address.octets()[..], &key].concat();
                    self.element(batch, kind, PUBLISHED_AT, &key, Some(&to));
                    self.element(batch, kind, OPEN_AT, &key, None);
                }
            }
        }
    }

    /// Lets clients come in on an interface of the host's.
    pub fn route(&self, batch: &mut Batch, interface: &str) {
        self.element(batch, Kind::NewElement, ROUTED, &name(interface), None);
    }

    /// Lets what comes in on an interface go to guests only.
    pub fn borrow(&self, batch: &mut Batch, interface: &str) {
        self.element(batch, Kind::NewElement, BORROWED, &name(interface), None);
    }

    /// The interface forwards for others as well.
    pub fn give_back(&self, batch: &mut Batch, interface: &str) {
        self.borrow(batch, interface);
        self.element(batch, Kind::DelElement, BORROWED, &name(interface), None);
    }
}

/// An interface's name as registers have it.
fn name(text: &str) -> [u8; libc::IFNAMSIZ] {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(text.bytes()) {
        *to = from;
    }
    name
}

/// Protocol and port, each in a register of its own.
fn transport(protocol: Protocol, port: u16) -> [u8; 8] {
    let number = match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    let [high, low] = port.to_be_bytes();
    [number as u8, 0, 0, 0, high, low, 0, 0]
}

fn target(address: Ipv4Addr, port: u16) -> [u8; 8] {
    let [a, b, c, d] = address.octets();
    let [high, low] = port.to_be_bytes();
    [a, b, c, d, high, low, 0, 0]
}
