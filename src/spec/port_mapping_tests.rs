//! Published ports as text and as JSON.

use super::*;
use crate::{Net, VmConfig};
use proptest::prelude::*;

fn mapping(text: &str) -> PortMapping {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_port_is_published_once() {
    for (one, other, collide) in [
        ("80:80", "80:81", true),
        ("80:80", "80:80/udp", false),
        ("80:80", "81:80", false),
        ("80:80", "127.0.0.1:80:80", true),
        ("80:80", "[::1]:80:80", true),
        ("80:80", "localhost:80:80", true),
        ("127.0.0.1:80:80", "127.0.0.1:80:81", true),
        ("127.0.0.2:80:80", "127.0.0.1:80:80", false),
        ("localhost:80:80", "127.0.0.1:80:80", true),
        ("localhost:80:80", "[::1]:80:80", true),
        ("localhost:80:80", "192.0.2.1:80:80", false),
        ("0.0.0.0:80:80", "[::]:80:80", false),
        ("0.0.0.0:80:80", "192.0.2.1:80:80", true),
        ("[::]:80:80", "[2001:db8::1]:80:80", true),
        ("[::ffff:192.0.2.1]:80:80", "192.0.2.1:80:80", true),
        // What is free is found out when they are bound.
        ("80", "80", false),
        ("80-90:80", "80:80", false),
    ] {
        assert_eq!(
            mapping(one).collides_with(&mapping(other)),
            collide,
            "{one} {other}"
        );
        assert_eq!(
            mapping(other).collides_with(&mapping(one)),
            collide,
            "{one} {other}"
        );
    }
    let config = VmConfig::builder().kernel("k");
    let twice = config.publish(mapping("80:80")).publish(mapping("80:81"));
    let error = twice.build().unwrap_err().to_string();
    assert!(
        error.contains("port 80:81/tcp is published twice"),
        "{error}"
    );
}

#[test]
fn ports_parse_like_dockers() {
    for (text, printed) in [
        ("8080:80", "8080:80/tcp"),
        ("53:5353/udp", "53:5353/udp"),
        ("53:5353/UDP", "53:5353/udp"),
        ("127.0.0.1:8080:80/tcp", "127.0.0.1:8080:80/tcp"),
        ("0.0.0.0:1:2", "0.0.0.0:1:2/tcp"),
        ("localhost:8080:80", "localhost:8080:80/tcp"),
        ("[::1]:8080:80", "[::1]:8080:80/tcp"),
        ("[::]:8080:80/udp", "[::]:8080:80/udp"),
        ("80", "80/tcp"),
        ("80/udp", "80/udp"),
        (":80", "80/tcp"),
        ("127.0.0.1::80", "127.0.0.1::80/tcp"),
        ("[::1]::80", "[::1]::80/tcp"),
        ("8000-8010:80", "8000-8010:80/tcp"),
        ("8000-8000:80", "8000:80/tcp"),
    ] {
        assert_eq!(mapping(text).to_string(), printed);
        assert_eq!(
            mapping(printed),
            mapping(text),
            "what is printed can be read"
        );
    }
    for (text, expected) in [
        ("", "from 1 to 65535"),
        ("8080:", "from 1 to 65535"),
        ("0:80", "from 1 to 65535"),
        ("+1:80", "from 1 to 65535"),
        ("8080:65536", "from 1 to 65535"),
        ("80-:80-", "from 1 to 65535"),
        ("90-80:90-80", "from the lower to the higher"),
        ("8080:80/sctp", "tcp or udp"),
        ("127.0.0.1:80", "the guest's port is missing"),
        ("localhost:80", "the guest's port is missing"),
        ("[::1]:80", "the guest's port is missing"),
        ("example.com:8080:80", "other names are not looked up"),
        ("::1:8080:80", "stands in brackets"),
        ("2001:db8::1:8080:80", "stands in brackets: [::1]:8080:80"),
        ("[127.0.0.1]:8080:80", "is not an IPv6 address"),
        ("[::1:8080:80", "`]:`"),
        ("[fe80::1]:8080:80", "link-local"),
        ("[ff02::1]:8080:80", "multicast"),
        ("255.255.255.255:8080:80", "broadcast"),
        ("8000-8010:80-89", "not equally long"),
        ("8000:80-90", "not equally long"),
        ("1000-1128:1000-1128", "at most 128 ports"),
    ] {
        let error = text.parse::<PortMappings>().unwrap_err().to_string();
        assert!(
            error.contains(expected) && error.contains(text),
            "{text}: {error}"
        );
    }
}

#[test]
fn ranges_are_as_many_ports() {
    let text = |text: &str| {
        let all = text.parse::<PortMappings>().unwrap().into_iter();
        all.map(|mapping| mapping.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        text("[::1]:8000-8002:80-82/udp"),
        [
            "[::1]:8000:80/udp",
            "[::1]:8001:81/udp",
            "[::1]:8002:82/udp"
        ]
    );
    assert_eq!(text("80-81"), ["80/tcp", "81/tcp"]);
    assert_eq!(
        text("localhost::80-81"),
        ["localhost::80/tcp", "localhost::81/tcp"]
    );
    assert_eq!(text("1000-1127:1000-1127").len(), PortMappings::MAX);
    let error = "80-81:80-81"
        .parse::<PortMapping>()
        .unwrap_err()
        .to_string();
    assert!(error.contains("not a range"), "{error}");
    // In JSON, too; and all together are not too many.
    let net: Net = serde_json::from_str(r#"{"publish": ["80-81:80-81", "90:90"]}"#).unwrap();
    assert_eq!(net.publish.len(), 3);
    let many = r#"{"kernel": "k", "nets": [{"publish": ["1000-1127:1-128", "90:90"]}]}"#;
    let error = VmConfig::from_json(many).unwrap_err().to_string();
    assert!(error.contains("129 ports are published"), "{error}");
    let twice = r#"{"kernel": "k", "nets": [{"publish": ["80-90:80-90", "[::1]:85:1"]}]}"#;
    let error = VmConfig::from_json(twice).unwrap_err().to_string();
    assert!(
        error.contains("[::1]:85:1/tcp is published twice"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn what_is_printed_can_be_read(text in r"(\[[0-9a-f:.]{0,12}\]:|[0-9.]{0,12}:|localhost:)?[0-9]{0,5}(-[0-9]{0,5})?:?[0-9]{1,5}(-[0-9]{1,5})?(/tcp|/udp|/x)?") {
        for mapping in text.parse::<PortMappings>().into_iter().flatten() {
            prop_assert_eq!(mapping.to_string().parse::<PortMapping>().unwrap(), mapping);
        }
    }

    #[test]
    fn any_text_is_ports_or_an_error(text: String) {
        let _ = text.parse::<PortMappings>();
    }
}
