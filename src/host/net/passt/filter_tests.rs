//! What passes: frames as guests and passt send them.

use super::*;
use std::net::Ipv4Addr;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 107, 255, 254);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 107, 255, 253);
/// Addresses of this host.
const OWN: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 2)];
const TCP: u8 = 6;

struct Own;

impl Routes for Own {
    fn lead_elsewhere(&mut self, address: Ipv4Addr) -> bool {
        !OWN.contains(&address)
    }
}

fn filter(egress: Egress) -> Filter<Own> {
    let policy = Policy {
        guest: GUEST,
        gateway: GATEWAY,
        egress,
        names: egress != Egress::None,
        published: vec![(TCP, 80), (UDP, 53)],
    };
    Filter::new(policy, Own)
}

/// A packet in a frame: its content behind a header without options.
fn packet(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend((20 + content.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(content);
    frame
}

/// What a guest sends or receives by TCP or UDP.
fn ports(protocol: u8, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut content = vec![0; 20];
    content[..2].copy_from_slice(&from.1.to_be_bytes());
    content[2..4].copy_from_slice(&to.1.to_be_bytes());
    packet(protocol, from.0, to.0, &content)
}

fn there(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

#[test]
fn a_guest_reaches_what_its_egress_says_and_never_this_host() {
    for (address, none, internet, all) in [
        ("198.51.100.1", false, true, true),
        ("10.0.0.1", false, false, true),
        ("192.168.1.1", false, false, true),
        ("169.254.169.254", false, false, true),
        ("100.64.0.1", false, false, true),
        ("127.0.0.1", false, false, false),
        ("192.0.2.2", false, false, false),
        ("10.107.255.253", false, false, false),
    ] {
        for (egress, expected) in [
            (Egress::None, none),
            (Egress::Internet, internet),
            (Egress::All, all),
        ] {
            let mut filter = filter(egress);
            for protocol in [TCP, UDP] {
                let frame = ports(protocol, (GUEST, 4000), (there(address), 80));
                assert_eq!(filter.may_leave(&frame), expected, "{address} {egress:?}");
            }
            let ping = packet(ICMP, GUEST, there(address), &[8, 0, 0, 0, 0, 1, 0, 1]);
            assert_eq!(filter.may_leave(&ping), expected, "{address} {egress:?}");
        }
    }
}

#[test]
fn names_are_asked_of_the_gateway() {
    let question = ports(UDP, (GUEST, 4000), (GATEWAY, 53));
    let answer = ports(UDP, (GATEWAY, 53), (GUEST, 4000));
    let mut closed = filter(Egress::None);
    assert!(!closed.may_leave(&question) && !closed.may_arrive(&answer));
    let mut open = filter(Egress::Internet);
    assert!(!open.may_arrive(&answer), "nobody has asked");
    assert!(open.may_leave(&question) && open.may_arrive(&answer));
    // Of TCP's passt makes a connection to this host.
    assert!(!open.may_leave(&ports(TCP, (GUEST, 4000), (GATEWAY, 53))));
    assert!(!open.may_leave(&ports(UDP, (GUEST, 4000), (GATEWAY, 54))));
}

#[test]
fn others_reach_published_ports_and_are_answered_wherever_they_are() {
    for client in ["198.51.100.1", "192.168.1.9", "10.107.255.253", "192.0.2.2"] {
        let client = (there(client), 5000);
        let mut filter = filter(Egress::None);
        for (protocol, port, expected) in [
            (TCP, 80, true),
            (UDP, 53, true),
            (TCP, 53, false),
            (UDP, 80, false),
            (TCP, 22, false),
        ] {
            let answer = ports(protocol, (GUEST, port), client);
            assert!(!filter.may_leave(&answer), "{client:?} has not asked");
            let asked = filter.may_arrive(&ports(protocol, client, (GUEST, port)));
            assert_eq!(asked, expected, "{protocol} {port}");
            assert_eq!(filter.may_leave(&answer), expected, "{protocol} {port}");
        }
        // From another port it is not an answer.
        assert!(!filter.may_leave(&ports(TCP, (GUEST, 81), client)));
    }
}

/// A client's port may be another program's when it is gone, and passt would make the connection to that.
#[test]
fn a_guest_opens_no_connection_to_where_a_client_came_from() {
    const FLAGS: usize = 14 + 20 + 13;
    for (client, egress, may_open) in [
        (GATEWAY, Egress::All, false),
        (there("198.51.100.1"), Egress::None, false),
        (there("198.51.100.1"), Egress::Internet, true),
    ] {
        let mut filter = filter(egress);
        let client = (client, 5000);
        let mut segment = ports(TCP, client, (GUEST, 80));
        segment[FLAGS] = 0x02;
        assert!(filter.may_arrive(&segment));
        let mut answer = ports(TCP, (GUEST, 80), client);
        for (flags, expected) in [
            (0x12, true),
            (0x10, true),
            (0x02, may_open),
            (0xc2, may_open),
        ] {
            answer[FLAGS] = flags;
            assert_eq!(filter.may_leave(&answer), expected, "{client:?} {flags:x}");
        }
    }
}

#[test]
fn what_a_guest_has_begun_is_answered_by_that_party_only() {
    let mut filter = filter(Egress::Internet);
    let party = (there("198.51.100.1"), 443);
    assert!(!filter.may_arrive(&ports(TCP, party, (GUEST, 4000))));
    assert!(filter.may_leave(&ports(TCP, (GUEST, 4000), party)));
    assert!(filter.may_arrive(&ports(TCP, party, (GUEST, 4000))));
    for (from, to) in [
        ((party.0, 444), (GUEST, 4000)),
        ((there("198.51.100.2"), 443), (GUEST, 4000)),
        (party, (GUEST, 4001)),
        (party, (GATEWAY, 4000)),
    ] {
        assert!(!filter.may_arrive(&ports(TCP, from, to)), "{from:?} {to:?}");
    }
    let ping = |kind: u8, from, to| packet(ICMP, from, to, &[kind, 0, 0, 0, 0, 7, 0, 1]);
    assert!(!filter.may_arrive(&ping(0, party.0, GUEST)));
    assert!(filter.may_leave(&ping(8, GUEST, party.0)));
    assert!(filter.may_arrive(&ping(0, party.0, GUEST)));
    // That a port is closed, say.
    assert!(filter.may_arrive(&packet(ICMP, party.0, GUEST, &[3, 3, 0, 0, 0, 0, 0, 0])));
}

#[test]
fn a_guest_has_its_own_address_and_no_other_protocols() {
    let mut filter = filter(Egress::All);
    let to = (there("198.51.100.1"), 80);
    assert!(filter.may_leave(&ports(TCP, (GUEST, 1), to)));
    for source in ["10.107.255.250", "0.0.0.0", "127.0.0.1", "192.0.2.2"] {
        assert!(
            !filter.may_leave(&ports(TCP, (there(source), 1), to)),
            "{source}"
        );
    }
    let fine = ports(UDP, (GUEST, 1), to);
    assert!(filter.may_leave(&fine));
    for (at, byte, what) in [
        (12, 0x86, "IPv6"),
        (12, 0x81, "a VLAN"),
        (14, 0x65, "another version"),
        (14, 0x44, "a header that is too short"),
        (16, 0xff, "a packet that is cut short"),
        (20, 0x20, "the first part of a packet"),
        (21, 1, "another part"),
        (23, 47, "GRE"),
    ] {
        let mut frame = fine.clone();
        frame[at] = byte;
        assert!(!filter.may_leave(&frame), "{what}");
        assert!(!filter.may_arrive(&frame), "{what}");
    }
    for bytes in 0..fine.len() {
        assert!(!filter.may_leave(&fine[..bytes]), "{bytes} bytes");
    }
}

#[test]
fn addresses_are_asked_for_and_not_taken() {
    let arp = |operation: u8, sender: Ipv4Addr| {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1]);
        frame.extend(sender.octets());
        frame.extend([0; 10]);
        frame
    };
    let mut filter = filter(Egress::None);
    assert!(filter.may_leave(&arp(1, GUEST)) && filter.may_leave(&arp(2, GUEST)));
    assert!(filter.may_leave(&arp(1, Ipv4Addr::UNSPECIFIED)));
    assert!(!filter.may_leave(&arp(1, GATEWAY)) && !filter.may_leave(&arp(3, GUEST)));
    assert!(filter.may_arrive(&arp(2, GATEWAY)));
}

proptest::proptest! {
    /// Whatever a guest or passt sends, it is judged; and what leaves has the guest's address.
    #[test]
    fn no_frame_is_too_much(frames in proptest::collection::vec(
        proptest::collection::vec(proptest::num::u8::ANY, 0..80), 0..20)) {
        let mut filter = filter(Egress::All);
        for mut frame in frames {
            if frame.len() > 14 {
                frame[12..15].copy_from_slice(&[8, 0, 0x45]);
            }
            filter.may_arrive(&frame);
            if filter.may_leave(&frame) && frame[13] == 0 {
                proptest::prop_assert_eq!(&frame[26..30], &GUEST.octets()[..]);
            }
        }
    }
}
