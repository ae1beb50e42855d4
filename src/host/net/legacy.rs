//! The older iptables, whose tables nf_tables does not know (linux/netfilter_ipv4/ip_tables.h).

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

const IPT_SO_GET_INFO: libc::c_int = 64;
const IPT_SO_GET_ENTRIES: libc::c_int = 65;
const TABLE: &[u8] = b"filter";
const NAME_BYTES: usize = 32;
/// Of `nf_inet_hooks`.
const FORWARD: usize = 2;
/// An entry is no less than its fixed part, whose first bytes say what it applies to: all zero is everything.
const ENTRY_BYTES: usize = 112;
const MATCH_BYTES: usize = 84;
const TARGET_OFFSET_AT: usize = 88;
const NEXT_OFFSET_AT: usize = 90;
/// In a target: its name, of up to 29 bytes, and behind its header of 32 the verdict of one that has no name.
const TARGET_NAME_AT: usize = 2;
const TARGET_NAME_BYTES: usize = 29;
const VERDICT_AT: usize = 32;
/// -NF_DROP - 1
const DROP: i32 = -1;
/// More than any firewall has, in bytes.
const MOST: u32 = 16 << 20;

/// How long until it is worth another look, where there is a table and where there is none: nobody tells of changes.
pub(super) const SOON: Duration = Duration::from_secs(2);
const SOME_TIME: Duration = Duration::from_secs(15);
/// Looking takes this part of the time, at most: all rules are read, and some hosts have many.
const PART: u32 = 1000;

/// What a look at iptables shows.
pub(super) struct Look {
    /// It ends by dropping or refusing what is forwarded. Not, as far as one can tell without the rights that it takes to
    /// ask.
    pub forwards_nothing: bool,
    /// How long until the next.
    pub next: Duration,
}

pub(super) fn look() -> Look {
    let begun = Instant::now();
    // Asking would load the module where it is not.
    let names = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names");
    let there = names.is_ok_and(|names| names.lines().any(|name| name.as_bytes() == TABLE));
    let entries = if there { entries() } else { None };
    Look {
        next: match entries {
            Some(_) => (begun.elapsed() * PART).clamp(SOON, SOME_TIME),
            None => SOME_TIME,
        },
        forwards_nothing: entries
            .is_some_and(|(entries, first, policy)| refuses(&entries, first, policy)),
    }
}

/// The entries of the table, with the places of the first of the forward chain and of its policy.
fn entries() -> Option<(Vec<u8>, usize, usize)> {
    // Any socket of IPv4 serves; a raw one would take CAP_NET_RAW as well.
    let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
    let socket = socket_with(AddressFamily::INET, kind, flags, None).ok()?;
    // struct ipt_getinfo: name, hooks, first entry of each of five, policy of each, number, size.
    let mut info = vec![0; NAME_BYTES + 4 + 20 + 20 + 4 + 4];
    info[..TABLE.len()].copy_from_slice(TABLE);
    ask(&socket, IPT_SO_GET_INFO, &mut info)?;
    let field = |at: usize| number(&info, NAME_BYTES + 4 + 4 * at);
    let (first, policy, size) = (field(FORWARD)?, field(5 + FORWARD)?, field(11)?);
    if size > MOST {
        return None;
    }
    // struct ipt_get_entries: name, size, and from a multiple of eight on the entries.
    const START: usize = (NAME_BYTES + 4).next_multiple_of(8);
    let mut all = vec![0; START + size as usize];
    all[..TABLE.len()].copy_from_slice(TABLE);
    all[NAME_BYTES..NAME_BYTES + 4].copy_from_slice(&size.to_ne_bytes());
    ask(&socket, IPT_SO_GET_ENTRIES, &mut all)?;
    Some((all.split_off(START), first as usize, policy as usize))
}

fn ask(socket: &OwnedFd, what: libc::c_int, buffer: &mut [u8]) -> Option<()> {
    let mut size = buffer.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes into the buffer, which has as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            what,
            buffer.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    (result == 0).then_some(())
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    let value = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(value).into())
}

/// Whether the policy drops, or the last rule before it refuses all.
fn refuses(entries: &[u8], first: usize, policy: usize) -> bool {
    let mut at = first;
    let mut last = false;
    while let Some(entry) = entries.get(at..) {
        let refused = refuses_all(entry).unwrap_or(false);
        if at >= policy {
            return last || refused;
        }
        last = refused;
        match short(entry, NEXT_OFFSET_AT) {
            Some(next) if next >= ENTRY_BYTES => at += next,
            _ => break,
        }
    }
    false
}

fn refuses_all(entry: &[u8]) -> Option<bool> {
    let about_all = entry.get(..MATCH_BYTES)?.iter().all(|byte| *byte == 0);
    let target = short(entry, TARGET_OFFSET_AT)?;
    let name = entry.get(target + TARGET_NAME_AT..target + TARGET_NAME_AT + TARGET_NAME_BYTES)?;
    let verdict = number(entry, target + VERDICT_AT)? as i32;
    let refuses = match name.split(|byte| *byte == 0).next()? {
        b"" => verdict == DROP,
        name => name == b"REJECT",
    };
    Some(about_all && target == ENTRY_BYTES && refuses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(about: u8, target: &[u8], verdict: i32) -> Vec<u8> {
        let mut entry = vec![0; ENTRY_BYTES + 40];
        entry[0] = about;
        entry[TARGET_OFFSET_AT..][..2].copy_from_slice(&(ENTRY_BYTES as u16).to_ne_bytes());
        entry[NEXT_OFFSET_AT..][..2].copy_from_slice(&(ENTRY_BYTES as u16 + 40).to_ne_bytes());
        entry[ENTRY_BYTES + TARGET_NAME_AT..][..target.len()].copy_from_slice(target);
        entry[ENTRY_BYTES + VERDICT_AT..][..4].copy_from_slice(&verdict.to_ne_bytes());
        entry
    }

    #[test]
    fn a_chain_that_ends_refusing_is_seen() {
        const ACCEPT: i32 = -2;
        let size = ENTRY_BYTES + 40;
        let chain = |rules: &[Vec<u8>]| refuses(&rules.concat(), 0, size * (rules.len() - 1));
        assert!(!chain(&[entry(0, b"", ACCEPT)]));
        assert!(chain(&[entry(0, b"", DROP)]));
        assert!(chain(&[entry(0, b"REJECT", 0), entry(0, b"", ACCEPT)]));
        assert!(!chain(&[entry(1, b"REJECT", 0), entry(0, b"", ACCEPT)]));
        assert!(!chain(&[
            entry(0, b"REJECT", 0),
            entry(1, b"", ACCEPT),
            entry(0, b"", ACCEPT)
        ]));
        // Nonsense is no firewall.
        assert!(!refuses(&[0; 10], 0, 0) && !refuses(&[0; 500], 0, 400));
    }
}
