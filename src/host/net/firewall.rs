//! Firewalls of this host that forward nothing for guests, whatever kvmlet's own table lets pass.
//!
//! Looked at are the base chains for forwarded packets of nf_tables, which firewalld and today's iptables use, and
//! that of the older iptables: one that ends by dropping or refusing what it does not know is in the way.

use super::legacy;
use super::nft::{INET, IPV4, Kind, Received, Socket, as_number, as_text, each, find};
use super::table::TABLE_PREFIX;
use std::fmt;
use std::io;

/// A firewall that forwards nothing by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Firewall {
    /// A table of nf_tables, by family and name.
    Table(&'static str, String),
    /// iptables with tables of its own.
    Legacy,
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(family, name) => write!(f, "`{family} {name}`"),
            Self::Legacy => f.write_str("`filter` of iptables-legacy"),
        }
    }
}

impl Firewall {
    /// What the user should know, and do.
    pub fn warning(&self, tap: &str) -> String {
        format!(
            "the firewall's table {self} forwards nothing by default, so the guest may reach nothing but this host; \
             let it with {}",
            self.remedy(tap)
        )
    }

    /// The command that lets a guest's packets pass.
    pub fn remedy(&self, tap: &str) -> String {
        let iptables = |program: &str| {
            format!("`sudo {program} -I FORWARD -i {tap} -j ACCEPT` and the same with `-o`")
        };
        match self {
            Self::Legacy => iptables("iptables-legacy"),
            Self::Table(_, name) if name == "firewalld" => {
                format!("`sudo firewall-cmd --zone=trusted --add-interface={tap}`")
            }
            Self::Table(_, name) if name == "filter" => iptables("iptables"),
            Self::Table(..) => {
                format!("a rule in it that accepts packets from and to the interface {tap}")
            }
        }
    }
}

/// A base chain.
struct Base {
    family: u8,
    table: String,
    chain: String,
    drops: bool,
}

/// The first firewall that is in the way; `None` where none is, or where it cannot be told.
pub(super) fn in_the_way(socket: &mut Socket) -> Option<Firewall> {
    of_tables(socket)
        .unwrap_or_else(|error| {
            log::debug!("this host's firewall is unknown: {error}");
            None
        })
        .or_else(|| legacy::look().forwards_nothing.then_some(Firewall::Legacy))
}

fn of_tables(socket: &mut Socket) -> io::Result<Option<Firewall>> {
    let mut bases = Vec::new();
    socket.list(Kind::GetChain, 0, &[], |chain| bases.extend(base(chain)))?;
    for base in bases {
        if base.drops || ends_refusing(socket, &base)? {
            let family = match base.family {
                IPV4 => "ip",
                _ => "inet",
            };
            return Ok(Some(Firewall::Table(family, base.table)));
        }
    }
    Ok(None)
}

/// A chain that sees forwarded packets of IPv4, and is not of kvmlet's own.
fn base(chain: &Received<'_>) -> Option<Base> {
    const NFTA_CHAIN_NAME: u16 = 3;
    const NFTA_CHAIN_HOOK: u16 = 4;
    const NFTA_CHAIN_POLICY: u16 = 5;
    const NFTA_CHAIN_TYPE: u16 = 7;
    const NF_INET_FORWARD: u32 = 2;
    const NF_DROP: u32 = 0;
    let hook = find(chain.attribute(NFTA_CHAIN_HOOK)?, 1).and_then(as_number);
    let table = chain.text(1)?;
    let sees = hook == Some(NF_INET_FORWARD)
        && chain.text(NFTA_CHAIN_TYPE) == Some("filter")
        && [IPV4, INET].contains(&chain.family);
    let policy = chain.attribute(NFTA_CHAIN_POLICY).and_then(as_number);
    (sees && !table.starts_with(TABLE_PREFIX)).then(|| Base {
        family: chain.family,
        table: table.into(),
        chain: chain.text(NFTA_CHAIN_NAME).unwrap_or_default().into(),
        drops: policy == Some(NF_DROP),
    })
}

fn ends_refusing(socket: &mut Socket, base: &Base) -> io::Result<bool> {
    const NFTA_RULE_CHAIN: u16 = 2;
    let only = [
        super::nft::text(1, &base.table),
        super::nft::text(NFTA_RULE_CHAIN, &base.chain),
    ];
    let mut refuses = false;
    socket.list(Kind::GetRule, base.family, &only, |rule| {
        let of_chain =
            rule.text(1) == Some(&base.table) && rule.text(NFTA_RULE_CHAIN) == Some(&base.chain);
        if of_chain {
            // The last one decides.
            refuses = refuses_all(rule).unwrap_or(false);
        }
    })?;
    Ok(refuses)
}

/// Does the rule refuse whatever comes to it?
fn refuses_all(rule: &Received<'_>) -> Option<bool> {
    const NFTA_RULE_EXPRESSIONS: u16 = 4;
    let mut refuses = false;
    for (_, expression) in each(rule.attribute(NFTA_RULE_EXPRESSIONS)?) {
        let name = find(expression, 1).and_then(as_text)?;
        let data = find(expression, 2).unwrap_or_default();
        match name {
            "counter" | "log" | "limit" => {}
            "reject" => refuses = true,
            // A target of iptables: its name comes first.
            "target" => refuses = find(data, 1).and_then(as_text) == Some("REJECT"),
            "immediate" => {
                // A verdict's code.
                let verdict = find(data, 2).and_then(|data| find(data, 2));
                let code = verdict.and_then(|verdict| find(verdict, 1));
                refuses = code.and_then(as_number) == Some(0);
            }
            // It looks at something: not all packets are meant.
            _ => return Some(false),
        }
    }
    Some(refuses)
}
