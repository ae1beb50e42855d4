use super::*;
use crate::{Account, ServiceSpec};

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.into()).collect()
}

fn full() -> GuestSpec {
    GuestSpec {
        service: ServiceSpec {
            command: strings(&[
                "/usr/sbin/nginx",
                "-g",
                "daemon off;",
                "",
                "--",
                "a,b\"c%20",
            ]),
            env: [("A", "x y=z"), ("EMPTY", ""), ("Ü", "\n\t€")]
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
            workdir: Some("/srv/a b".into()),
            user: Some(User {
                user: Account::Name("nginx".into()),
                group: Some(Account::Number(34)),
            }),
        },
        hostname: Some("web-1".into()),
        networks: [
            NetworkSpec {
                interface: "eth0".into(),
                address: [172, 16, 0, 2].into(),
                prefix: 30,
                gateway: Some([172, 16, 0, 1].into()),
                dns: [[1, 1, 1, 1].into(), [9, 9, 9, 9].into()].into(),
                mtu: Some(1400),
            },
            NetworkSpec {
                interface: "a,b".into(),
                address: "fd00::2".parse().unwrap(),
                prefix: 64,
                gateway: None,
                dns: Vec::new(),
                mtu: None,
            },
        ]
        .into(),
        root: Some(RootSpec {
            device: "/dev/vda".into(),
            fstype: Some(FileSystem::Erofs),
            read_only: true,
            overlay: Some(Overlay::Device("/dev/vdb".into())),
        }),
        stop_timeout_s: Some(90),
        console: Some(ConsoleSize {
            columns: 132,
            rows: 43,
        }),
        agent: Some(AgentSpec::Directory("/run/a b".into())),
    }
}

#[test]
fn a_full_description_comes_back() {
    let cmdline = full().to_cmdline();
    assert!(
        cmdline
            .bytes()
            .all(|b| matches!(b, b' '..=b'~') && b != b'"'),
        "{cmdline}"
    );
    assert_eq!(GuestSpec::from_cmdline(&cmdline), Ok(full()));
}

#[test]
fn each_part_comes_back_alone() {
    let base = full();
    let parts = [
        GuestSpec::default(),
        GuestSpec {
            service: base.service,
            ..Default::default()
        },
        GuestSpec {
            hostname: base.hostname,
            ..Default::default()
        },
        GuestSpec {
            agent: Some(AgentSpec::Vsock),
            ..Default::default()
        },
        GuestSpec {
            networks: base.networks,
            ..Default::default()
        },
        GuestSpec {
            root: base.root.clone(),
            ..Default::default()
        },
        GuestSpec {
            root: base.root.map(|root| RootSpec {
                fstype: Some(FileSystem::Ext4),
                read_only: false,
                overlay: Some(Overlay::Tmpfs),
                ..root
            }),
            ..Default::default()
        },
    ];
    for part in parts {
        let cmdline = part.to_cmdline();
        assert_eq!(GuestSpec::from_cmdline(&cmdline), Ok(part), "{cmdline}");
    }
}

#[test]
fn the_written_form_is_the_documented_one() {
    let expected = "kvmlet.arg=/usr/sbin/nginx kvmlet.arg=-g kvmlet.arg=daemon%20off; \
             kvmlet.arg= kvmlet.arg=-- kvmlet.arg=a,b%22c%2520 kvmlet.env=A=x%20y=z \
             kvmlet.env=EMPTY= kvmlet.env=%C3%9C=%0A%09%E2%82%AC kvmlet.workdir=/srv/a%20b \
             kvmlet.user=nginx:34 kvmlet.hostname=web-1 \
             kvmlet.net=eth0,172.16.0.2/30,gateway=172.16.0.1,dns=1.1.1.1,dns=9.9.9.9,mtu=1400 \
             kvmlet.net=a%2Cb,fd00::2/64 kvmlet.root=/dev/vda,fstype=erofs,ro \
             kvmlet.overlay=/dev/vdb kvmlet.stop_timeout=90 \
             kvmlet.console=132x43 kvmlet.agent=/run/a%20b";
    assert_eq!(full().to_cmdline(), expected);
}

#[test]
fn other_parameters_are_left_alone() {
    let cmdline = "console=ttyS0 quiet kvmlet.arg=id root=/dev/vda kvmlet -- x=kvmlet.y\n";
    let guest = GuestSpec::from_cmdline(cmdline).unwrap();
    assert_eq!(guest.to_cmdline(), "kvmlet.arg=id");
}

#[test]
fn a_later_variable_replaces_an_earlier_one() {
    let guest = GuestSpec::from_cmdline("kvmlet.env=A=1 kvmlet.env=B=2 kvmlet.env=A=3");
    assert_eq!(guest.unwrap().to_cmdline(), "kvmlet.env=A=3 kvmlet.env=B=2");
}

#[test]
fn errors_name_the_parameter() {
    let cases = [
        ("kvmlet.foo=1", "unknown key \"kvmlet.foo\""),
        ("kvmlet.", "unknown key \"kvmlet.\""),
        (
            "kvmlet.workdir=/a kvmlet.workdir=/b",
            "\"kvmlet.workdir\" is given twice",
        ),
        ("kvmlet.arg=%0", "kvmlet.arg: \"%0\""),
        ("kvmlet.arg=%00", "contains a NUL byte"),
        ("kvmlet.env=A", "kvmlet.env: \"A\": should be NAME=VALUE"),
        ("kvmlet.env==1", "should be NAME=VALUE"),
        ("kvmlet.user=a/b", "kvmlet.user: \"a/b\""),
        ("kvmlet.user=4294967295", "kvmlet.user: \"4294967295\""),
        ("kvmlet.net=eth0", "should be IFACE,ADDRESS/PREFIX"),
        ("kvmlet.net=eth0,10.0.0.1", "should be IFACE,ADDRESS/PREFIX"),
        ("kvmlet.net=,10.0.0.1/8", "1 to 15 bytes"),
        ("kvmlet.net=a-name-of-16-byt,10.0.0.1/8", "1 to 15 bytes"),
        (
            "kvmlet.net=eth0,10.0.0.300/8",
            "\"10.0.0.300\": is not an IP address",
        ),
        ("kvmlet.net=eth0,10.0.0.1/33", "longer than the address"),
        (
            "kvmlet.net=eth0,10.0.0.1/8,gateway=fd00::1",
            "differ in IP version",
        ),
        (
            "kvmlet.net=eth0,10.0.0.1/8,mtu=big",
            "\"big\": is not a number of bytes",
        ),
        (
            "kvmlet.net=eth0,10.0.0.1/8,gw=10.0.0.2",
            "kvmlet.net: \"gw=10.0.0.2\"",
        ),
        (
            "kvmlet.net=eth0,10.0.0.1/8,mtu=1,mtu=2",
            "\"mtu\" is given twice",
        ),
        (
            "kvmlet.root=vda",
            "kvmlet.root: \"vda\": should be a device under /dev",
        ),
        (
            "kvmlet.root=/dev/vda,fstype=xfs",
            "kvmlet.root: \"fstype=xfs\"",
        ),
        (
            "kvmlet.root=/dev/vda kvmlet.root=/dev/vda",
            "\"kvmlet.root\" is given twice",
        ),
        (
            "kvmlet.agent=tcp",
            "kvmlet.agent: \"tcp\": should be vsock or",
        ),
        ("kvmlet.overlay=tmpfs", "needs kvmlet.root"),
        (
            "kvmlet.root=/dev/vda kvmlet.overlay=x",
            "kvmlet.overlay: \"x\"",
        ),
    ];
    for (cmdline, expected) in cases {
        let error = GuestSpec::from_cmdline(cmdline).unwrap_err().to_string();
        assert!(error.contains(expected), "{cmdline}: {error}");
    }
}
