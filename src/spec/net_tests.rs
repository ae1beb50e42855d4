//! Interfaces and ports as text and as JSON.

use super::*;
use crate::Rate;

fn net(text: &str) -> Result<Net, String> {
    text.parse().map_err(|error: Error| error.to_string())
}

#[test]
fn text_and_json_say_the_same() {
    let text = net(
        "mac=02:00:5e:10:00:01,mtu=9000,queues=4,subnet=10.9.8.0/30,rx-bandwidth=10M,\
                    rx-burst=1M,tx-packets=1000",
    );
    let json = serde_json::from_str(
        r#"{"mac": "02:00:5e:10:00:01", "mtu": 9000, "queues": 4, "subnet": "10.9.8.0/30",
            "rx": {"bandwidth": "10M", "burst": "1M"}, "tx": {"operations": 1000}}"#,
    )
    .unwrap();
    assert_eq!(text, Ok(json));
    let text = text.unwrap();
    assert_eq!(text.mac.unwrap().to_string(), "02:00:5e:10:00:01");
    assert_eq!(
        text.rx.bandwidth,
        Some(Rate::per_second(10 << 20).unwrap().burst(1 << 20))
    );
    let subnet = text.subnet.unwrap();
    assert_eq!(subnet.host().to_string(), "10.9.8.1");
    assert_eq!(subnet.guest().to_string(), "10.9.8.2");
    assert_eq!(net(""), Ok(Net::default()));
    assert_eq!(net("tap=tap0").unwrap().tap.as_deref(), Some("tap0"));
    assert_eq!(net("tap0,queues=2").unwrap().tap.as_deref(), Some("tap0"));
}

#[test]
fn what_is_wrong_is_named() {
    for (text, expected) in [
        (
            "tapp=x",
            "a network interface has no key `tapp`; did you mean `tap`?",
        ),
        ("mtu=1500,rx-bandwith=1M", "did you mean `rx-bandwidth`?"),
        (
            "tap=",
            "`tap` of a network interface needs a value: the name",
        ),
        ("rx-burst=1M", "add `rx-bandwidth`"),
        ("tx-packets-once=3", "add `tx-packets`"),
        (
            "tap=a/b",
            "`tap` of a network interface is `a/b`, not the name of an interface",
        ),
        (
            "sixteen_letters_",
            "`tap` of a network interface is `sixteen_letters_`, not",
        ),
        (
            "mtu=big",
            "`mtu` of a network interface is `big`, not a whole number",
        ),
        ("mtu=67", "an MTU of 67 is outside the limits"),
        ("queues=9", "9 queue pairs"),
        (
            "mac=01:00:00:00:00:01",
            "is `01:00:00:00:00:01`, not an address",
        ),
        ("mac=2:0:0:0:0:1", "not an address"),
        ("subnet=10.0.0.1/30", "is `10.0.0.1/30`, not a network"),
        ("subnet=10.0.0.0/31", "not a network"),
        ("subnet=0.0.0.0/30", "not a network for hosts"),
        ("subnet=127.0.0.0/30", "not a network for hosts"),
        ("subnet=169.254.169.252/30", "not a network for hosts"),
        ("subnet=169.0.0.0/8", "not a network for hosts"),
        ("subnet=224.0.0.0/30", "not a network for hosts"),
        ("subnet=255.255.255.252/30", "not a network for hosts"),
        ("tx-packets=-1", "not a whole number"),
        ("tap=t,subnet=10.0.0.0/30", "`subnet`"),
        ("tap=t,backend=passt", "`backend`"),
        ("backend=slirp", "is `slirp`, not `tap` or `passt`"),
        ("vhost,passt", "no key `passt`"),
        (
            "passt,vhost",
            "`vhost` of a network interface is `on`, not off, as with passt",
        ),
        ("vhost=on,tx-packets=5", "not off, as with limits"),
        ("tap=t,vhost,rx-bandwidth=5", "not off, as with limits"),
        ("vhost=maybe", "is `maybe`, not on or off"),
        (
            "passt,queues=2",
            "is `2`, not 1, which is all that passt has",
        ),
    ] {
        let error = net(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let error = serde_json::from_str::<Net>(r#"{"queue": 1}"#).unwrap_err();
    assert!(error.to_string().contains("unknown field `queue`"));
}

#[test]
fn the_kernel_serves_where_it_is_asked_to() {
    let net = |text: &str| text.parse::<Net>().unwrap();
    assert!(net("vhost,queues=2").vhost && net("tap0,vhost=on").vhost);
    let json: Net = serde_json::from_str(r#"{"vhost": true}"#).unwrap();
    assert_eq!(json, net("vhost"));
    assert_eq!(net("vhost=off"), Net::default());
    let written = serde_json::to_string(&net("vhost=off")).unwrap();
    assert!(!written.contains("vhost"), "{written}");
}

#[test]
fn name_servers_are_for_all_interfaces_of_kvmlets_own() {
    let config = |text: &str| {
        let text = format!(r#"{{"kernel": "k", {text}}}"#);
        let config = crate::VmConfig::from_json(&text).map_err(|error| error.to_string())?;
        let dns = config.nets.iter().map(|net| net.dns.len());
        Ok::<_, String>(dns.collect::<Vec<_>>())
    };
    let two = r#""dns": ["192.0.2.1", "::1"]"#;
    let nets = format!(r#"{two}, "nets": [{{}}, {{"tap": "tap0"}}, {{"publish": ["80"]}}]"#);
    assert_eq!(config(&nets).unwrap(), [2, 0, 2]);
    for (text, expected) in [
        (two.to_string(), "there is no such interface"),
        (
            format!(r#"{two}, "nets": [{{"tap": "tap0"}}]"#),
            "there is no such interface",
        ),
        (
            r#""dns": ["0.0.0.0"], "nets": [{}]"#.into(),
            "0.0.0.0 cannot be",
        ),
        (
            r#""dns": ["ff02::1"], "nets": [{}]"#.into(),
            "ff02::1 cannot be",
        ),
        (
            r#""dns": ["resolver"], "nets": [{}]"#.into(),
            "`resolver` is not an IP address",
        ),
        (r#""nets": [{"dns": ["::1"]}]"#.into(), "unknown key `dns`"),
    ] {
        let error = config(&text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_backend_comes_first_without_its_key() {
    let net = |text: &str| text.parse::<Net>().unwrap();
    let passt = net("passt,egress=all");
    assert_eq!(passt.backend, Some(NetBackend::Passt));
    assert_eq!((passt.tap, passt.egress), (None, Some(Egress::All)));
    assert_eq!(net("tap").backend, Some(NetBackend::Tap));
    assert_eq!(net("egress=all,backend=tap").backend, Some(NetBackend::Tap));
    // Taps may have these names.
    let tap = net("tap=passt");
    assert_eq!((tap.backend, tap.tap.as_deref()), (None, Some("passt")));
    assert_eq!(net("passt0").tap.as_deref(), Some("passt0"));
    let json: Net = serde_json::from_str(r#"{"backend": "passt"}"#).unwrap();
    assert_eq!(json, net("passt"));
    assert_eq!(
        serde_json::to_string(&json)
            .unwrap()
            .matches("passt")
            .count(),
        1
    );
}

#[test]
fn a_tap_that_is_open_has_as_many_pairs_as_descriptors_and_rules_of_its_own() {
    let queues = |count| (0..count).map(|_| std::fs::File::open("/dev/null").unwrap().into());
    let net = Net::open(queues(3)).unwrap();
    assert!(!net.is_made() && net.queues.get() == 3);
    assert!(Net::open(queues(9)).is_err());
    let error = |net: Net| {
        let config = crate::VmConfig::builder().kernel("k").net(net);
        config.build().err().map(|error| error.to_string())
    };
    let mut other = net.clone();
    other.mtu = Some(1400.try_into().unwrap());
    assert_eq!(error(other.clone()), None);
    other.egress = Some(crate::Egress::None);
    assert!(error(other).unwrap().contains("egress"));
    // A port is published by one that kvmlet makes.
    let config = crate::VmConfig::builder().kernel("k").net(net);
    let config = config.publish("80".parse().unwrap()).build().unwrap();
    assert_eq!(config.nets.len(), 2);
}
