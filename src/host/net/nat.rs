//! The guests' way out and the published ports' way in: one nftables table of kvmlet's own.
//!
//! The table `ip kvmlet` has the same few rules for all VMs, and sets and maps whose elements are theirs. A
//! change is one `nft` transaction: it is made as a whole or not at all. With the last VM the table goes.

use super::lease::{Leases, Record, namespace};
use super::{Error, link};
use crate::config::Subnet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Which interfaces are guests', and which packets may pass. Rules see forwarded packets of all interfaces;
/// all but two concern guests only. Those that arrive on an interface for which kvmlet has switched
/// forwarding on (`borrowed`) go to guests or nowhere, as they did before.
const TABLE: &str = "\
add table ip kvmlet
add set ip kvmlet taps { type ifname; }
add set ip kvmlet routed { type ifname; }
add set ip kvmlet borrowed { type ifname; }
add set ip kvmlet guests { type ifname . ipv4_addr; }
add set ip kvmlet addresses { type ipv4_addr; }
add set ip kvmlet resolvers { type ifname . inet_proto . inet_service; }
add map ip kvmlet published { type inet_proto . inet_service : ipv4_addr . inet_service; }
add map ip kvmlet published_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
add chain ip kvmlet prerouting { type nat hook prerouting priority dstnat; }
add chain ip kvmlet postrouting { type nat hook postrouting priority srcnat; }
add chain ip kvmlet forward { type filter hook forward priority filter; }
add chain ip kvmlet input { type filter hook input priority filter; }
flush table ip kvmlet
add rule ip kvmlet prerouting iifname @routed fib daddr type local \
    dnat ip to ip daddr . meta l4proto . th dport map @published_at
add rule ip kvmlet prerouting iifname @routed fib daddr type local \
    dnat ip to meta l4proto . th dport map @published
add rule ip kvmlet postrouting ip saddr @addresses masquerade
add rule ip kvmlet forward iifname @taps iifname . ip saddr != @guests drop
add rule ip kvmlet forward oifname @taps ct state established,related accept
add rule ip kvmlet forward oifname @taps ct status dnat accept
add rule ip kvmlet forward oifname @taps drop
add rule ip kvmlet forward iifname @borrowed oifname != @taps drop
add rule ip kvmlet input iifname @taps iifname . ip saddr != @guests drop
add rule ip kvmlet input iifname @taps ct state established,related accept
add rule ip kvmlet input iifname @taps icmp type echo-request accept
add rule ip kvmlet input iifname . meta l4proto . th dport @resolvers accept
add rule ip kvmlet input iifname @taps drop
";

/// A name has at most 15 bytes.
const MAX_BORROWED_BYTES: u64 = 64 << 10;

const NO_TABLE: &str = "add table ip kvmlet\ndelete table ip kvmlet\n";

/// Where nft is looked for: it gets CAP_NET_ADMIN, so the caller's PATH does not matter.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Opens the ways of one VM, and says what will not work all the same. `first`: no other VM has any in this
/// network namespace.
pub(super) fn add(leases: &Leases, record: &Record, first: bool) -> Result<Vec<String>, Error> {
    nft_path()?;
    let mut warnings = Vec::new();
    let borrowed = match switch_forwarding_on(leases, &record.tap) {
        Ok(interfaces) => interfaces,
        Err(error) => {
            warnings.push(format!(
                "the guest reaches nothing but this host: packets cannot be forwarded ({error})"
            ));
            Vec::new()
        }
    };
    let mut script = String::new();
    if first {
        // What may be left of VMs that nobody remembers would be in the way.
        script += NO_TABLE;
    }
    script += TABLE;
    elements(&mut script, "add", record);
    for (set, names) in [
        ("routed", &link::forwarding_interfaces()),
        ("borrowed", &borrowed),
    ] {
        for name in names {
            let _ = writeln!(script, "add element ip kvmlet {set} {{ \"{name}\" }}");
        }
    }
    script += "list chains\n";
    let chains = nft(&script)?;
    if let Some(table) = blocking_table(&chains) {
        // What is let in here is still dropped there; without DNAT the proxy serves it.
        let mut script = String::new();
        published(&mut script, "delete", record);
        nft(&script)?;
        warnings.push(format!(
            "the firewall's table `{table}` forwards nothing by default, so the guest may reach nothing but \
             this host; let it with `sudo iptables -I FORWARD -i {} -j ACCEPT` and the same with `-o`",
            record.tap
        ));
    }
    Ok(warnings)
}

/// Closes the ways of VMs. `last`: no other VM has any in this network namespace.
pub(super) fn remove(leases: &Leases, gone: &[Record], last: bool) {
    let mut script = String::new();
    if last {
        script += NO_TABLE;
        switch_forwarding_off(leases);
    } else {
        script += TABLE;
        for record in gone {
            // Whether it is there or not: added it is, and then can be deleted.
            elements(&mut script, "add", record);
            elements(&mut script, "delete", record);
        }
    }
    match nft(&script) {
        // Without nft there was nothing to close.
        Ok(_) | Err(Error::NftMissing) => {}
        Err(error) => log::warn!("cannot take down the network of a VM: {error}"),
    }
}

/// The elements that are one VM's.
fn elements(script: &mut String, verb: &str, record: &Record) {
    let (tap, guest) = (&record.tap, record.guest);
    // Writing to a String cannot fail.
    let _ = writeln!(script, "{verb} element ip kvmlet taps {{ \"{tap}\" }}");
    let _ = writeln!(script, "{verb} element ip kvmlet routed {{ \"{tap}\" }}");
    let _ = writeln!(
        script,
        "{verb} element ip kvmlet guests {{ \"{tap}\" . {guest} }}"
    );
    let _ = writeln!(script, "{verb} element ip kvmlet addresses {{ {guest} }}");
    resolver(script, verb, record);
    published(script, verb, record);
}

/// The guest's questions about names go to the host's port 53 in its network, and arrive at ports that stand for it.
fn resolver(script: &mut String, verb: &str, record: &Record) {
    let (Some(dns), Ok(subnet)) = (record.dns, record.subnet.parse::<Subnet>()) else {
        return;
    };
    let (tap, host) = (&record.tap, subnet.host());
    for (protocol, port) in [("udp", dns.udp), ("tcp", dns.tcp)] {
        let _ = writeln!(
            script,
            "{verb} element ip kvmlet resolvers {{ \"{tap}\" . {protocol} . {port} }}"
        );
        let _ = writeln!(
            script,
            "{verb} element ip kvmlet published_at {{ {host} . {protocol} . 53 : {host} . {port} }}"
        );
    }
}

fn published(script: &mut String, verb: &str, record: &Record) {
    let guest = record.guest;
    for port in record.forwarded() {
        let (map, at) = match port.at {
            Some(address) => ("published_at", format!("{address} . ")),
            None => ("published", String::new()),
        };
        let _ = writeln!(
            script,
            "{verb} element ip kvmlet {map} {{ {at}{} . {} : {guest} . {} }}",
            port.protocol.name(),
            port.host,
            port.guest
        );
    }
}

/// The table of a base chain that drops what it does not know when packets are forwarded, if one does.
/// (nft prints chains as it reads them; asked for JSON, version 1.0.6 dies of a list in a script.)
fn blocking_table(chains: &str) -> Option<&str> {
    let mut table = "";
    for line in chains.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches('{').trim_end();
        }
        let ours = table.starts_with("ip ") || table.starts_with("inet ");
        if ours && line.contains(" hook forward ") && line.contains("policy drop") {
            return Some(table);
        }
    }
    None
}

/// The file that says which interfaces forward for guests only.
fn borrowed_file() -> String {
    format!("forwarding-{}", namespace())
}

fn borrowed(leases: &Leases) -> Vec<String> {
    let known = leases
        .directory()
        .read(&borrowed_file(), MAX_BORROWED_BYTES);
    let known = known.ok().flatten().unwrap_or_default();
    let lines = String::from_utf8_lossy(&known);
    lines.lines().map(String::from).collect()
}

/// Packets are forwarded when the interface that they come in on says so. The host's setting for all is left
/// as it is; returns the interfaces that were switched on for guests, now or before.
fn switch_forwarding_on(leases: &Leases, tap: &str) -> io::Result<Vec<String>> {
    let mut borrowed = borrowed(leases);
    link::set_forwarding(tap, true)?;
    for route in link::routes()?.iter().filter(|route| route.is_default()) {
        let uplink = &route.interface;
        if uplink != tap && !link::forwards(uplink) {
            borrowed.push(uplink.clone());
            borrowed.sort();
            borrowed.dedup();
            // Noted first: what is noted too much is switched off once too often, to what it was.
            let text = borrowed.join("\n");
            leases
                .directory()
                .write(&borrowed_file(), text.as_bytes())?;
            link::set_forwarding(uplink, true)?;
        }
    }
    Ok(borrowed)
}

fn switch_forwarding_off(leases: &Leases) {
    for interface in borrowed(leases) {
        // An interface that is gone forwards nothing.
        let _ = link::set_forwarding(&interface, false);
    }
    let file = borrowed_file();
    if let Err(error) = leases.directory().remove(&file) {
        let directory = leases.directory().path().display();
        log::warn!("cannot remove {directory}/{file}: {error}");
    }
}

fn nft_path() -> Result<PathBuf, Error> {
    let candidates = DIRECTORIES.map(|directory| PathBuf::from(directory).join("nft"));
    candidates
        .into_iter()
        .find(|file| file.is_file())
        .ok_or(Error::NftMissing)
}

/// Runs a script as one transaction and returns what it lists.
fn nft(script: &str) -> Result<String, Error> {
    let failed = |error: io::Error| Error::Nft {
        message: error.to_string(),
    };
    let mut command = Command::new(nft_path()?);
    command
        .args(["-f", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if !rustix::process::geteuid().is_root() {
        // SAFETY: the closure makes two system calls and touches no memory but its own.
        unsafe { command.pre_exec(pass_net_admin_on) };
    }
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().next().unwrap_or("failed without a word");
    Err(Error::Nft {
        message: first.into(),
    })
}

/// Lets the program that is run next have CAP_NET_ADMIN, which a file capability gives to kvmlet only.
fn pass_net_admin_on() -> io::Result<()> {
    use rustix::thread::{
        CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities,
    };
    let net_admin = CapabilitySet::NET_ADMIN;
    let mut sets = capabilities(None)?;
    sets.inheritable |= net_admin & sets.permitted;
    set_capabilities(None, sets)?;
    Ok(configure_capability_in_ambient_set(net_admin, true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firewall_that_blocks_is_found() {
        let chains = |table: &str, base: &str| {
            format!(
                "table inet other {{\n}}\ntable {table} {{\n\tchain CHAIN {{\n\t\ttype filter {base};\n\t}}\n}}\n"
            )
        };
        let drops = "hook forward priority filter; policy drop";
        assert_eq!(
            blocking_table(&chains("ip filter", drops)),
            Some("ip filter")
        );
        assert_eq!(blocking_table(&chains("inet fw", drops)), Some("inet fw"));
        for (table, base) in [
            ("ip6 filter", drops),
            ("ip filter", "hook input priority filter; policy drop"),
            ("ip kvmlet", "hook forward priority filter; policy accept"),
        ] {
            assert_eq!(blocking_table(&chains(table, base)), None, "{table} {base}");
        }
        assert_eq!(blocking_table(""), None);
    }
}
