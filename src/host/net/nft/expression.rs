//! What rules are made of: expressions that load into registers, compare, and decide (enum nft_registers and the
//! attributes of each expression in linux/netfilter/nf_tables.h).

use super::message::{Attribute, bytes, nest, number, text};

/// A register of 32 bits, by its number. Sixteen of them follow each other, so that what is loaded side by side is
/// one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

const NFT_REG32_00: u32 = 8;
const NFT_REG_VERDICT: u32 = 0;

impl Register {
    fn attribute(self, kind: u16) -> Attribute {
        number(kind, NFT_REG32_00 + u32::from(self.0))
    }
}

/// What is known of a packet beside its contents (enum nft_meta_keys).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Meta {
    /// Number of the interface it has come in on, which is never used again.
    Input = 4,
    /// Number of the interface it goes out on.
    Output = 5,
    /// Name of the interface it has come in on: 16 bytes.
    InputName = 6,
    /// Name of the interface it goes out on: 16 bytes.
    OutputName = 7,
    /// Protocol of its transport layer.
    Protocol = 16,
}

/// What connection tracking knows (enum nft_ct_keys).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Connection {
    State = 0,
    Status = 2,
}

/// Of the packet that a connection began with, before any rule led it elsewhere (enum nft_ct_keys).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Original {
    /// The port that it was sent to.
    DestinationPort = 12,
    /// The IPv4 address that it was sent to.
    DestinationAddress = 20,
}

/// Where in a packet (enum nft_payload_bases).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum Header {
    Network = 1,
    Transport = 2,
}

/// What becomes of a packet (linux/netfilter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    Drop = 0,
    Accept = 1,
}

/// One step of a rule. A comparison or a search that does not hold ends the rule.
#[derive(Clone, Debug)]
pub enum Expression {
    LoadMeta(Meta, Register),
    LoadConnection(Connection, Register),
    LoadOriginal(Original, Register),
    /// Bytes of a header: where, how many.
    LoadPayload(Header, u32, u32, Register),
    /// The type of the destination's address, as the host's routes have it: RTN_LOCAL is its own.
    LoadDestinationType(Register),
    /// The register is cut to these bits.
    Mask(Register, u32),
    /// These are the first bytes.
    Equal(Register, Vec<u8>),
    NotEqual(Register, Vec<u8>),
    /// What begins at the register is in the set of that name.
    In(Register, &'static str),
    NotIn(Register, &'static str),
    /// As [`In`](Self::In), and what the map has for it comes to the first registers.
    Map(Register, &'static str),
    /// To the address and port in the first two registers.
    DestinationNat,
    /// From the address of the interface that it goes out on.
    Masquerade,
    Decide(Verdict),
}

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;

impl Expression {
    /// As an element of a rule's list.
    pub fn attribute(&self) -> Attribute {
        let (name, data) = self.parts();
        let parts = [text(NFTA_EXPR_NAME, name), nest(NFTA_EXPR_DATA, &data)];
        nest(NFTA_LIST_ELEM, &parts)
    }

    /// Its name, and its own attributes, numbered in the order of the kernel's header.
    fn parts(&self) -> (&'static str, Vec<Attribute>) {
        match self {
            Self::LoadMeta(key, to) => ("meta", vec![to.attribute(1), number(2, *key as u32)]),
            Self::LoadConnection(key, to) => ("ct", vec![to.attribute(1), number(2, *key as u32)]),
            Self::LoadOriginal(key, to) => {
                const IP_CT_DIR_ORIGINAL: u8 = 0;
                let direction = bytes(3, [IP_CT_DIR_ORIGINAL]);
                (
                    "ct",
                    vec![to.attribute(1), number(2, *key as u32), direction],
                )
            }
            Self::LoadPayload(header, offset, length, to) => (
                "payload",
                vec![
                    to.attribute(1),
                    number(2, *header as u32),
                    number(3, *offset),
                    number(4, *length),
                ],
            ),
            Self::LoadDestinationType(to) => {
                const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
                const NFTA_FIB_F_DADDR: u32 = 2;
                let result = number(2, NFT_FIB_RESULT_ADDRTYPE);
                (
                    "fib",
                    vec![to.attribute(1), result, number(3, NFTA_FIB_F_DADDR)],
                )
            }
            Self::Mask(register, bits) => (
                "bitwise",
                vec![
                    register.attribute(1),
                    register.attribute(2),
                    number(3, 4),
                    data(4, &bits.to_ne_bytes()),
                    data(5, &[0; 4]),
                ],
            ),
            Self::Equal(register, value) => ("cmp", compare(*register, 0, value)),
            Self::NotEqual(register, value) => ("cmp", compare(*register, 1, value)),
            Self::In(register, set) => ("lookup", vec![text(1, set), register.attribute(2)]),
            Self::NotIn(register, set) => {
                const NFT_LOOKUP_F_INV: u32 = 1;
                let inverted = number(5, NFT_LOOKUP_F_INV);
                (
                    "lookup",
                    vec![text(1, set), register.attribute(2), inverted],
                )
            }
            Self::Map(register, map) => {
                let to = Register(0).attribute(3);
                ("lookup", vec![text(1, map), register.attribute(2), to])
            }
            Self::DestinationNat => {
                const NFT_NAT_DNAT: u32 = 1;
                let family = number(2, super::message::IPV4.into());
                let (address, port) = (Register(0).attribute(3), Register(1).attribute(5));
                ("nat", vec![number(1, NFT_NAT_DNAT), family, address, port])
            }
            Self::Masquerade => ("masq", Vec::new()),
            Self::Decide(verdict) => {
                let code = number(NFTA_VERDICT_CODE, *verdict as u32);
                let verdict = nest(NFTA_DATA_VERDICT, &[code]);
                let to = number(1, NFT_REG_VERDICT);
                ("immediate", vec![to, nest(2, &[verdict])])
            }
        }
    }
}

/// A value in a register's bytes.
pub fn data(kind: u16, value: &[u8]) -> Attribute {
    nest(kind, &[bytes(NFTA_DATA_VALUE, value)])
}

fn compare(register: Register, operation: u32, value: &[u8]) -> Vec<Attribute> {
    vec![register.attribute(1), number(2, operation), data(3, value)]
}
