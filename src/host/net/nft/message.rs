//! Messages of nf_tables: a header, a family, and attributes within attributes (linux/netfilter/nf_tables.h).

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLA_TYPE_MASK, NLM_F_ACK, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkHeader, NlasIterator,
};

/// The subsystem's number, which is the upper half of a message's type (linux/netfilter/nfnetlink.h).
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// A netlink header, and a `nfgenmsg` behind it.
const HEADER_BYTES: usize = 16;
pub const FAMILY_BYTES: usize = 4;

/// NFPROTO_IPV4: tables of IPv4 packets.
pub const IPV4: u8 = 2;
/// NFPROTO_IPV6: tables of IPv6 packets.
pub const IPV6: u8 = 10;
/// NFPROTO_INET: tables of IPv4 and IPv6 packets.
pub const INET: u8 = 1;

/// What a message asks for, or tells of (enum nf_tables_msg_types).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    DelChain = 5,
    NewRule = 6,
    GetRule = 7,
    DelRule = 8,
    NewSet = 9,
    DelSet = 11,
    NewElement = 12,
    GetElement = 13,
    DelElement = 14,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::NewTable,
        Self::GetTable,
        Self::DelTable,
        Self::NewChain,
        Self::GetChain,
        Self::DelChain,
        Self::NewRule,
        Self::GetRule,
        Self::DelRule,
        Self::NewSet,
        Self::DelSet,
        Self::NewElement,
        Self::GetElement,
        Self::DelElement,
    ];

    /// The type in a message's header.
    pub fn message_type(self) -> u16 {
        NFNL_SUBSYS_NFTABLES << 8 | self as u16
    }

    /// Is it about a set or what is in one, and so about no rule?
    pub fn is_about_contents(self) -> bool {
        matches!(
            self,
            Self::NewSet | Self::DelSet | Self::NewElement | Self::GetElement | Self::DelElement
        )
    }

    fn of(message_type: u16) -> Option<Self> {
        let known = |kind: &Self| kind.message_type() == message_type;
        Self::ALL.into_iter().find(known)
    }
}

pub type Attribute = DefaultNla;

pub fn bytes(kind: u16, value: impl Into<Vec<u8>>) -> Attribute {
    DefaultNla::new(kind, value.into())
}

/// Numbers are big-endian here, but for those in registers.
pub fn number(kind: u16, value: u32) -> Attribute {
    bytes(kind, value.to_be_bytes())
}

/// With the zero that ends it.
pub fn text(kind: u16, value: &str) -> Attribute {
    bytes(kind, [value.as_bytes(), &[0]].concat())
}

/// An attribute of attributes that are written already.
pub fn nested(kind: u16, attributes: Vec<u8>) -> Attribute {
    bytes(kind | NLA_F_NESTED, attributes)
}

pub fn nest(kind: u16, attributes: &[Attribute]) -> Attribute {
    let mut value = vec![0; attributes.buffer_len()];
    attributes.emit(&mut value);
    nested(kind, value)
}

/// One message, with its family.
pub fn message(
    message_type: u16,
    flags: u16,
    sequence: u32,
    family: [u8; FAMILY_BYTES],
    attributes: &[Attribute],
) -> Vec<u8> {
    let length = HEADER_BYTES + FAMILY_BYTES + attributes.buffer_len();
    let mut header = NetlinkHeader::default();
    header.length = length as u32;
    header.message_type = message_type;
    header.flags = flags | NLM_F_REQUEST;
    header.sequence_number = sequence;
    let mut bytes = vec![0; length];
    header.emit(&mut bytes);
    bytes[HEADER_BYTES..HEADER_BYTES + FAMILY_BYTES].copy_from_slice(&family);
    attributes.emit(&mut bytes[HEADER_BYTES + FAMILY_BYTES..]);
    bytes
}

/// Changes of tables that are made together, or not at all.
pub struct Batch {
    bytes: Vec<u8>,
    last: Option<(usize, u32)>,
    sequence: u32,
}

impl Batch {
    pub fn new(first_sequence: u32) -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            last: None,
            sequence: first_sequence,
        };
        batch.mark(BATCH_BEGIN);
        batch
    }

    fn mark(&mut self, kind: u16) {
        // The subsystem stands where other messages have a resource's number.
        let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
        let mark = message(kind, 0, self.sequence, [0, 0, high, low], &[]);
        self.bytes.extend(mark);
        self.sequence += 1;
    }

    /// Adds a change of a table of that family, and returns its number.
    pub fn push(&mut self, family: u8, kind: Kind, flags: u16, attributes: &[Attribute]) -> u32 {
        self.last = Some((self.bytes.len(), self.sequence));
        let family = [family, 0, 0, 0];
        let change = message(
            kind.message_type(),
            flags,
            self.sequence,
            family,
            attributes,
        );
        self.bytes.extend(change);
        self.sequence += 1;
        self.sequence - 1
    }

    /// The messages, the number of the one whose answer comes last, and the next number that is free; none where nothing
    /// is to change: older kernels (6.1) do not answer that.
    pub fn finish(mut self) -> Option<(Vec<u8>, u32, u32)> {
        self.mark(BATCH_END);
        let (at, sequence) = self.last?;
        let flags = NetlinkBuffer::new(&self.bytes[at..]).flags() | NLM_F_ACK;
        NetlinkBuffer::new(&mut self.bytes[at..]).set_flags(flags);
        Some((self.bytes, sequence, self.sequence))
    }
}

/// Which change of those in a batch has a number, in words; none for what is not one.
pub fn describe(batch: &[u8], sequence: u32) -> Option<String> {
    let mut rest = batch;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        if message.sequence_number() == sequence {
            let change = Received::parse(message.message_type(), message.payload())?;
            return Some(change.describe());
        }
        rest = rest.get((message.length() as usize).next_multiple_of(4)..)?;
    }
    None
}

/// A message of nf_tables that was received.
pub struct Received<'a> {
    pub kind: Kind,
    pub family: u8,
    attributes: &'a [u8],
}

impl<'a> Received<'a> {
    /// What a message says; `None` if it is not of nf_tables, or of no kind that matters here.
    pub fn parse(message_type: u16, payload: &'a [u8]) -> Option<Self> {
        Some(Self {
            kind: Kind::of(message_type)?,
            family: *payload.first()?,
            attributes: payload.get(FAMILY_BYTES..)?,
        })
    }

    pub fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        find(self.attributes, kind)
    }

    pub fn text(&self, kind: u16) -> Option<&'a str> {
        as_text(self.attribute(kind)?)
    }

    /// What it is about, for people who read rules.
    fn describe(&self) -> String {
        let name = |kind| self.text(kind).unwrap_or_default();
        let what = match self.kind {
            Kind::NewRule | Kind::GetRule | Kind::DelRule => {
                let steps: Vec<_> = self.attribute(4).map_or(Vec::new(), |all| {
                    each(all)
                        .filter_map(|(_, step)| step_of_rule(step))
                        .collect()
                });
                format!("the rule `{}` of the chain `{}`", steps.join(", "), name(2))
            }
            Kind::NewChain | Kind::GetChain | Kind::DelChain => format!("the chain `{}`", name(3)),
            Kind::NewSet | Kind::DelSet => format!("the set `{}`", name(2)),
            Kind::NewElement | Kind::GetElement | Kind::DelElement => {
                format!("an element of the set `{}`", name(2))
            }
            Kind::NewTable | Kind::GetTable | Kind::DelTable => format!("the table `{}`", name(1)),
        };
        match self.family {
            IPV6 => format!("{what} for IPv6"),
            _ => what,
        }
    }
}

/// One expression of a rule: its name, and for a search where.
fn step_of_rule(step: &[u8]) -> Option<String> {
    let name = as_text(find(step, 1)?)?;
    let set = || as_text(find(find(step, 2)?, 1)?);
    match name {
        "lookup" => Some(format!("lookup @{}", set()?)),
        name => Some(name.into()),
    }
}

/// The value of the first attribute of a kind.
pub fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    each(attributes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// Kinds and values of all attributes, as far as they are whole.
pub fn each(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .map(|attribute| {
            let length = usize::from(attribute.length());
            let inner = attribute.into_inner();
            (
                u16::from_ne_bytes([inner[2], inner[3]]) & NLA_TYPE_MASK,
                &inner[4..length],
            )
        })
}

pub fn as_text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0])?).ok()
}

pub fn as_number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}
