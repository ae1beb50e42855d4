//! The environment of whoever runs kvmlet, with rights of its own and with those that its file has.

use super::{PLAIN, Refused, Situation, Who};

/// Programs that tell when they are run, under all names that kvmlet might look for.
const PROGRAMS: &str = r#"mkdir -m 777 /tmp/evil; cd /tmp/evil
    for name in nft ip id sh sysctl iptables modprobe mkfs.ext4 mke2fs; do printf '#!/bin/sh\n>/tmp/evil/ran-%s\n' $name >$name; done
    chmod 755 *"#;

/// Whoever may run a kvmlet that has more capabilities than it should.
const CALLER: Situation = Situation {
    who: Who::Privileged,
    ..PLAIN
};

pub const SITUATIONS: &[Situation] = &[
    Situation {
        name: "root's PATH begins with programs of others",
        who: Who::Root,
        attack: PROGRAMS,
        environment: &[("PATH", "/tmp/evil:/usr/sbin:/usr/bin:/sbin:/bin")],
        arguments: &["--net"],
        ..PLAIN
    },
    Situation {
        name: "root's PATH is where it is",
        who: Who::Root,
        attack: "cp /bin/true /tmp/nft",
        environment: &[("PATH", ".")],
        arguments: &["--net"],
        ..PLAIN
    },
    Situation {
        name: "a user's PATH begins with programs of others",
        attack: PROGRAMS,
        environment: &[("PATH", "/tmp/evil:/usr/sbin:/usr/bin:/sbin:/bin")],
        ..PLAIN
    },
    Situation {
        name: "mkfs of others, for a user who has a disk made",
        plant: concat!(
            "mkdir -p -m 700 /home/victim/run/kvmlet; mkfs.ext4 -q /home/victim/run/kvmlet/root.img 4M; ",
            "chmod 700 /home/victim/run; chown -R $V /home/victim/run"
        ),
        attack: PROGRAMS,
        environment: &[
            ("PATH", "/tmp/evil"),
            ("XDG_RUNTIME_DIR", "/home/victim/run"),
        ],
        arguments: &[
            "--root",
            "/home/victim/run/kvmlet/root.img",
            "--scratch",
            "/home/victim/run/kvmlet/scratch.img,size=16M",
        ],
        ..PLAIN
    },
    Situation {
        name: "a user's home is the attacker's, and all below it",
        attack: "mkdir -m 777 /tmp/evil; ln -s /home/victim /tmp/evil/.cache; ln -s /home/victim /tmp/evil/.config",
        environment: &[
            ("HOME", "/tmp/evil"),
            ("XDG_CACHE_HOME", "/tmp/evil/.cache"),
            ("XDG_CONFIG_HOME", "/tmp/evil/.config"),
            ("XDG_STATE_HOME", "/tmp/evil"),
            ("XDG_DATA_HOME", "/tmp/evil"),
        ],
        ..PLAIN
    },
    Situation {
        name: "words that a user's log is asked for",
        environment: &[("RUST_LOG", "trace,/[("), ("RUST_BACKTRACE", "full")],
        ..PLAIN
    },
    Situation {
        name: "a runtime directory by way of /proc",
        environment: &[("XDG_RUNTIME_DIR", "/proc/self/cwd")],
        ..PLAIN
    },
    Situation {
        name: "a caller with a network",
        arguments: &["--net"],
        ..CALLER
    },
    Situation {
        name: "a caller with programs of his own",
        attack: PROGRAMS,
        environment: &[("PATH", "/tmp/evil")],
        arguments: &["--net"],
        ..CALLER
    },
    Situation {
        name: "a caller with libraries of his own",
        attack: "cp /bin/true /tmp/evil.so; chmod 755 /tmp/evil.so",
        environment: &[
            ("LD_PRELOAD", "/tmp/evil.so"),
            ("LD_LIBRARY_PATH", "/tmp"),
            ("LD_AUDIT", "/tmp/evil.so"),
            ("GLIBC_TUNABLES", "glibc.malloc.check=3"),
            ("GCONV_PATH", "/tmp"),
        ],
        arguments: &["--net"],
        ..CALLER
    },
    Situation {
        name: "a caller who names a runtime directory",
        plant: "mkdir -m 700 /home/attacker/run; chown $A /home/attacker/run",
        environment: &[
            ("XDG_RUNTIME_DIR", "/home/attacker/run"),
            ("TMPDIR", "/home/attacker"),
        ],
        arguments: &["--net"],
        ..CALLER
    },
    Situation {
        name: "a caller who writes where he may not",
        arguments: &["--stats", "/home/victim/canary"],
        outcome: Refused(&["cannot write to `/home/victim/canary`", "permission denied"]),
        ..CALLER
    },
    Situation {
        name: "a caller who makes a file where he may not",
        arguments: &["--stats", "/home/victim/new"],
        outcome: Refused(&["cannot write to `/home/victim/new`", "permission denied"]),
        ..CALLER
    },
    Situation {
        name: "a caller with a disk of another user",
        plant: "chmod 600 /home/victim/canary",
        arguments: &["--disk", "/home/victim/canary"],
        outcome: Refused(&["/home/victim/canary", "permission denied"]),
        ..CALLER
    },
    Situation {
        name: "a caller with a configuration of another user",
        plant: "chmod 600 /home/victim/canary",
        arguments: &["--config", "/home/victim/canary"],
        outcome: Refused(&["/home/victim/canary", "permission denied"]),
        ..CALLER
    },
    Situation {
        name: "a caller with a file of his own to write",
        arguments: &["--stats", "/home/attacker/stats.json"],
        ..CALLER
    },
    Situation {
        name: "a caller with a tap of his own",
        plant: "ip tuntap add dev mine mode tap user $A; ip link set mine up",
        arguments: &["--net", "tap=mine"],
        ..CALLER
    },
    Situation {
        name: "a caller with a tap of another user",
        plant: "ip tuntap add dev his mode tap user $V",
        arguments: &["--net", "tap=his"],
        outcome: Refused(&["no permission to use the tap `his`"]),
        ..CALLER
    },
    Situation {
        name: "a caller with one more queue of another user's tap",
        plant: "ip tuntap add dev his mode tap multi_queue user $V",
        arguments: &["--net", "tap=his,queues=2"],
        outcome: Refused(&["no permission to use the tap `his`"]),
        ..CALLER
    },
    Situation {
        name: "a caller with root's interface",
        plant: "ip tuntap add dev its mode tap user root",
        arguments: &["--net", "tap=its"],
        outcome: Refused(&["no permission to use the tap `its`"]),
        ..CALLER
    },
    Situation {
        name: "a caller who wants the packets to somebody's addresses",
        arguments: &["--net", "subnet=198.51.100.0/30"],
        outcome: Refused(&["198.51.100.0/30 is not one of those", "10.107.0.0/16"]),
        ..CALLER
    },
    Situation {
        name: "a caller who wants the packets to all private addresses",
        arguments: &["--net", "subnet=10.0.0.0/8"],
        outcome: Refused(&["10.0.0.0/8 is not one of those"]),
        ..CALLER
    },
    Situation {
        name: "a caller with a network that is there for everybody",
        arguments: &["--net", "subnet=10.107.9.0/30"],
        ..CALLER
    },
    Situation {
        name: "root with a network of his choice",
        who: Who::Root,
        arguments: &["--net", "subnet=198.51.100.0/30"],
        ..PLAIN
    },
    Situation {
        name: "a caller who forges a lease in his own directory",
        attack: r#"mkdir -p -m 700 /tmp/kvmlet-$A/net; cd /tmp/kvmlet-$A/net;
                 echo '{"pid":1,"namespace":'$NAMESPACE',"tap":"victim0","subnet":"192.0.2.0/24",
                 "guest":"192.0.2.2","published":[],"dns":null}' >192.0.2.0.claim"#,
        arguments: &["--net"],
        ..CALLER
    },
    Situation {
        name: "a caller of a kvmlet that is set-user-ID",
        who: Who::SetUserId,
        outcome: Refused(&["set-user-ID", "chmod u-s"]),
        ..PLAIN
    },
    Situation {
        name: "a caller of a kvmlet that is set-user-ID, with a file of root's",
        who: Who::SetUserId,
        arguments: &["--stats", "/home/root/canary"],
        outcome: Refused(&["set-user-ID"]),
        ..PLAIN
    },
];

/// RUST_LOG, HOME and XDG_CACHE_HOME of a caller.
pub fn words() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: other users are played by root");
    }
    let speak = || {
        let scene = super::Scene::enter();
        let environment = [
            ("RUST_LOG", "trace"),
            ("HOME", "/tmp/evil"),
            ("XDG_CACHE_HOME", "/tmp/evil/cache"),
            ("GREETING", "hello"),
        ];
        let boot = |who, kernel: &[&str]| {
            let arguments: Vec<&str> = ["boot"].iter().chain(kernel).copied().collect();
            let output = scene.kvmlet(who, &environment, &arguments);
            (
                output.status.code(),
                String::from_utf8(output.stdout).unwrap(),
                String::from_utf8(output.stderr).unwrap(),
            )
        };
        // It is the victim's own choice what his kvmlet says, and where it looks.
        let ready = ["--kernel", "/mnt/bin/ready"];
        assert!(boot(Who::Victim, &ready).2.contains("DEBUG"));
        assert!(boot(Who::Victim, &[]).2.contains("/tmp/evil/cache"));
        assert_eq!(
            boot(Who::Privileged, &ready),
            (Some(0), "ready\n".into(), "".into())
        );
        let (code, _, message) = boot(Who::Privileged, &[]);
        assert!(code == Some(125) && !message.contains("evil"), "{message}");
        // What is passed on to the guest is data.
        let pass = ["--kernel", "/mnt/bin/pvh_entry", "-e", "GREETING"];
        let (_, console, _) = boot(Who::Privileged, &pass);
        assert!(console.contains("kvmlet.env=GREETING=hello"), "{console}");
    };
    std::thread::spawn(speak).join().unwrap();
}
