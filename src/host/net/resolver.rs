//! Name servers that a guest can reach.

use std::fs;
use std::net::Ipv4Addr;

/// The second is where systemd-resolved tells the servers behind its own, which listens on loopback only.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// resolv.conf(5): more are ignored.
const MOST: usize = 3;

/// The host's name servers, without those on its loopback.
pub(super) fn name_servers() -> Vec<Ipv4Addr> {
    FILES
        .iter()
        .map(|file| parse(&fs::read_to_string(file).unwrap_or_default()))
        .find(|servers| !servers.is_empty())
        .unwrap_or_default()
}

fn parse(text: &str) -> Vec<Ipv4Addr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words
            .next()
            .filter(|word| *word == "nameserver")
            .and(words.next())?;
        let address: Ipv4Addr = address.parse().ok()?;
        (!address.is_loopback() && !address.is_unspecified()).then_some(address)
    };
    text.lines().filter_map(server).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_that_a_guest_can_reach_count() {
        let text = "# nameserver 1.2.3.4\nnameserver 127.0.0.53\nsearch example\nnameserver ::1\n\
                    nameserver 192.0.2.1\n nameserver\t192.0.2.2 # x\nnameserver 1.1.1.1\nnameserver 8.8.8.8";
        let servers = parse(text);
        assert_eq!(servers.len(), 3);
        assert_eq!(servers[1], Ipv4Addr::new(192, 0, 2, 2));
    }
}
