//! The runtime directory: made by others, opened to others, named by others.

use super::{PLAIN, Refused, Situation, Who, WorksAndSays};

const FOREIGN: super::Outcome = Refused(&[
    "/tmp/kvmlet-23002",
    "belongs to uid 23001",
    "XDG_RUNTIME_DIR",
]);

/// As setfacl(1) does, which is not everywhere: the attacker may do all (acl(5), linux/posix_acl_xattr.h).
macro_rules! list {
    ($kind:literal) => {
        concat!(
            "mkdir -m 700 /tmp/kvmlet-$V; chown $V /tmp/kvmlet-$V; perl -e '\
             my $list = pack(\"V(vvV)5\", 2, 1,7,0xffffffff, 2,7,$ENV{A}, 4,0,0xffffffff, 16,7,0xffffffff, 32,0,0xffffffff); \
             my $directory = \"/tmp/kvmlet-$ENV{V}\"; my $name = \"system.posix_acl_",
            $kind,
            "\"; syscall(188, $directory, $name, $list, length $list, 0) == 0 or die $!'"
        )
    };
}
const ACCESS_LIST: &str = list!("access");
const DEFAULT_LIST: &str = list!("default");

/// Somebody was there first.
pub const FORGED: &[Situation] = &[
    Situation {
        name: "nobody was there first",
        ..PLAIN
    },
    Situation {
        name: "closed directory",
        attack: "mkdir -m 700 /tmp/kvmlet-$V",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "open directory",
        attack: "mkdir -m 777 /tmp/kvmlet-$V",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "sticky directory",
        attack: "mkdir -m 1777 /tmp/kvmlet-$V",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "link to the victim's home",
        attack: "ln -s /home/victim /tmp/kvmlet-$V",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "link to a directory of the victim that kvmlet could use",
        attack: "ln -s /home/victim/empty /tmp/kvmlet-$V",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "link to what is not there yet",
        attack: "ln -s /home/victim/new /tmp/kvmlet-$V",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "link to the attacker's directory",
        attack: "mkdir -m 777 /tmp/mine; ln -s /tmp/mine /tmp/kvmlet-$V",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "file",
        attack: ">/tmp/kvmlet-$V; chmod 666 /tmp/kvmlet-$V",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "FIFO",
        attack: "mkfifo -m 666 /tmp/kvmlet-$V",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "a new offer of CPUID that is a link",
        attack: "mkdir -m 777 /tmp/kvmlet-$V; cd /tmp/kvmlet-$V; ln -s /home/victim/canary cpuid.new; \
                 ln -s /home/victim/canary cpuid",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "a lock that is a link",
        attack: "mkdir -m 777 /tmp/kvmlet-$V; cd /tmp/kvmlet-$V; mkdir -m 777 ledger net; \
                 ln -s /home/victim/canary ledger/lock; ln -s /home/victim/canary net/lock",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "directories of notes that are links",
        attack: "mkdir -m 777 /tmp/kvmlet-$V; cd /tmp/kvmlet-$V; ln -s /home/victim ledger; ln -s /home/victim net",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "a forged promise that names a directory of the victim",
        attack: r#"mkdir -p -m 777 /tmp/kvmlet-$V/ledger; echo '{"pid":1,"promise":{"cpu_milli":0,"cpus":null,
                 "memory_bytes":0,"reserved":false},"cgroups":["/home/victim/empty"]}' >/tmp/kvmlet-$V/ledger/x.claim"#,
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "a lock that is held",
        attack: "mkdir -p -m 777 /tmp/kvmlet-$V/ledger; cd /tmp/kvmlet-$V/ledger; >lock; chmod 666 lock; \
                 flock -F lock sleep 5 >/dev/null 2>&1 &",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "a link to itself",
        attack: "ln -s kvmlet-$V /tmp/kvmlet-$V",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "a directory that gives its group on",
        attack: "mkdir -m 2777 /tmp/kvmlet-$V",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "a socket",
        attack: "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"/tmp/kvmlet-$ENV{V}\", Listen => 1) or die'",
        outcome: FOREIGN,
        ..PLAIN
    },
    Situation {
        name: "a directory of the victim's that gives the attacker's group on",
        plant: "mkdir /tmp/kvmlet-$V; chown $V:$A /tmp/kvmlet-$V; chmod 2700 /tmp/kvmlet-$V",
        ..PLAIN
    },
    Situation {
        name: "a directory of the victim's that a list opens to the attacker",
        plant: ACCESS_LIST,
        attack: "ln -s /home/victim/canary /tmp/kvmlet-$V/cpuid",
        outcome: Refused(&["can be written by other users (mode 0770)"]),
        ..PLAIN
    },
    Situation {
        name: "a directory of the victim's whose list is for what is made in it",
        plant: DEFAULT_LIST,
        ..PLAIN
    },
    Situation {
        name: "a directory of the victim's that was opened to all",
        plant: "mkdir -m 777 /tmp/kvmlet-$V; chown $V /tmp/kvmlet-$V",
        attack: "ln -s /home/victim/canary /tmp/kvmlet-$V/cpuid.new; mkdir -m 777 /tmp/kvmlet-$V/ledger",
        outcome: Refused(&[
            "can be written by other users (mode 0777)",
            "rm -r /tmp/kvmlet-23002",
        ]),
        ..PLAIN
    },
    Situation {
        name: "a directory of the victim's that was opened to a group",
        plant: "mkdir -m 770 /tmp/kvmlet-$V; chown $V:$A /tmp/kvmlet-$V",
        attack: "ln -s /home/victim/canary /tmp/kvmlet-$V/cpuid.new",
        outcome: Refused(&["can be written by other users (mode 0770)"]),
        ..PLAIN
    },
    Situation {
        name: "an attempt to move the victim's directory away",
        plant: "mkdir -m 700 /tmp/kvmlet-$V; chown $V /tmp/kvmlet-$V",
        attack: "! mv /tmp/kvmlet-$V /tmp/away 2>/dev/null; ! rmdir /tmp/kvmlet-$V 2>/dev/null",
        ..PLAIN
    },
    Situation {
        name: "the way out of it all",
        plant: "mkdir -m 700 /home/victim/run; chown $V /home/victim/run",
        attack: "mkdir -m 777 /tmp/kvmlet-$V",
        environment: &[("XDG_RUNTIME_DIR", "/home/victim/run")],
        ..PLAIN
    },
    Situation {
        name: "root does not look in /tmp",
        who: Who::Root,
        attack: "mkdir -m 777 /tmp/kvmlet-0; ln -s /home/root/canary /tmp/kvmlet-0/cpuid.new",
        ..PLAIN
    },
    Situation {
        name: "a directory for root that is another user's",
        who: Who::Root,
        plant: "mkdir -m 755 /run/kvmlet; chown $A /run/kvmlet",
        attack: "mkdir -m 777 /run/kvmlet/ledger; ln -s /home/root/canary /run/kvmlet/cpuid",
        outcome: Refused(&["`/run/kvmlet`", "belongs to uid 23001"]),
        ..PLAIN
    },
    Situation {
        name: "a file where root's would be, in a container's /run",
        who: Who::Root,
        plant: "chmod 1777 /run",
        attack: ">/run/kvmlet",
        outcome: Refused(&["`/run/kvmlet`", "belongs to uid 23001"]),
        ..PLAIN
    },
    Situation {
        name: "a directory for root that systemd has made for all to read",
        who: Who::Root,
        plant: "mkdir -m 755 /run/kvmlet",
        ..PLAIN
    },
];

/// Somebody else's name for it, or a name that leads elsewhere: then it is not there, but where it always is.
pub const NAMED: &[Situation] = &[
    Situation {
        name: "of one's own",
        plant: "mkdir -m 700 /home/victim/run; chown $V /home/victim/run",
        environment: &[("XDG_RUNTIME_DIR", "/home/victim/run")],
        ..PLAIN
    },
    Situation {
        name: "the attacker's, closed",
        attack: "mkdir -m 755 /tmp/mine",
        environment: &[("XDG_RUNTIME_DIR", "/tmp/mine")],
        ..PLAIN
    },
    Situation {
        name: "the attacker's, open",
        attack: "mkdir -m 777 /tmp/mine; mkdir -m 777 /tmp/mine/kvmlet",
        environment: &[("XDG_RUNTIME_DIR", "/tmp/mine")],
        outcome: WorksAndSays("XDG_RUNTIME_DIR is not used"),
        ..PLAIN
    },
    Situation {
        name: "one's own, open to all",
        plant: "mkdir -m 777 /tmp/open; chown $V /tmp/open",
        attack: "ln -s /home/victim/empty /tmp/open/kvmlet",
        environment: &[("XDG_RUNTIME_DIR", "/tmp/open")],
        outcome: WorksAndSays("XDG_RUNTIME_DIR is not used"),
        ..PLAIN
    },
    Situation {
        name: "the attacker's link to the victim's home",
        attack: "ln -s /home/victim /tmp/link",
        environment: &[("XDG_RUNTIME_DIR", "/tmp/link")],
        ..PLAIN
    },
    Situation {
        name: "a link in the attacker's directory",
        attack: "mkdir /tmp/mine; ln -s /home/victim /tmp/mine/run",
        environment: &[("XDG_RUNTIME_DIR", "/tmp/mine/run")],
        ..PLAIN
    },
    Situation {
        name: "a directory below the attacker's",
        plant: "mkdir -p /tmp/mine/run; chown $A /tmp/mine; chown $V /tmp/mine/run; chmod 700 /tmp/mine/run",
        environment: &[("XDG_RUNTIME_DIR", "/tmp/mine/run")],
        ..PLAIN
    },
    Situation {
        name: "a way through a directory that all can write to",
        plant: "mkdir -p /tmp/open/run; chmod 777 /tmp/open; chown $V /tmp/open/run; chmod 700 /tmp/open/run",
        environment: &[("XDG_RUNTIME_DIR", "/tmp/open/run")],
        outcome: WorksAndSays("XDG_RUNTIME_DIR is not used"),
        ..PLAIN
    },
    Situation {
        name: "that of the user before `su`",
        plant: "mkdir -p /run/user/$A; chown $A /run/user/$A; chmod 700 /run/user/$A",
        environment: &[("XDG_RUNTIME_DIR", "/run/user/23001")],
        ..PLAIN
    },
    Situation {
        name: "that of the user before `sudo -E`",
        who: Who::Root,
        attack: "mkdir -m 777 /tmp/mine",
        environment: &[("XDG_RUNTIME_DIR", "/tmp/mine")],
        ..PLAIN
    },
    Situation {
        name: "root's own",
        environment: &[("XDG_RUNTIME_DIR", "/run")],
        ..PLAIN
    },
    Situation {
        name: "a relative path",
        attack: "mkdir -m 777 /tmp/here",
        environment: &[("XDG_RUNTIME_DIR", "here")],
        ..PLAIN
    },
    Situation {
        name: "nothing",
        environment: &[("XDG_RUNTIME_DIR", "")],
        ..PLAIN
    },
    Situation {
        name: "what is not there",
        environment: &[("XDG_RUNTIME_DIR", "/run/user/23002")],
        ..PLAIN
    },
    Situation {
        name: "a login's, that the environment does not know",
        plant: "mkdir -p /run/user/$V; chown $V /run/user/$V; chmod 700 /run/user/$V",
        attack: "mkdir -m 777 /tmp/kvmlet-$V",
        ..PLAIN
    },
    Situation {
        name: "a login's directory that is another user's",
        plant: "mkdir -p /run/user/$V; chown $A /run/user/$V",
        ..PLAIN
    },
    Situation {
        name: "a file",
        attack: ">/tmp/file",
        environment: &[("XDG_RUNTIME_DIR", "/tmp/file")],
        ..PLAIN
    },
    Situation {
        name: "TMPDIR",
        attack: "mkdir -m 1777 /tmp/mine",
        environment: &[("TMPDIR", "/tmp/mine")],
        ..PLAIN
    },
];
