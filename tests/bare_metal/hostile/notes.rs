//! Notes that kvmlet has not written, in a directory that it trusts: as if it had been deceived before.

use super::{PLAIN, Refused, Situation, Who};

/// Root, for whom notes can do most.
const ROOT: Situation = Situation {
    who: Who::Root,
    ..PLAIN
};

/// An ordinary user's directory, whose notes can name what else is that user's. It is below a home, for files there to
/// have other names in it.
const USER: Situation = Situation {
    environment: &[("XDG_RUNTIME_DIR", "/home/victim/run")],
    ..PLAIN
};

/// A directory as of [`USER`], with something in it.
macro_rules! with {
    ($what:literal) => {
        concat!(
            "mkdir -p -m 700 /home/victim/run/kvmlet/ledger; cd /home/victim/run/kvmlet; chmod 700 .. .; ",
            $what,
            "; chown -hR $V /home/victim/run"
        )
    };
}

pub const OF_A_USER: &[Situation] = &[
    Situation {
        name: "a promise that names a directory of the user's",
        plant: with!(
            r#"echo '{"pid":1,"promise":{"cpu_milli":0,"cpus":null,"memory_bytes":0,"reserved":false},
               "cgroups":["/home/victim/empty","/home/victim/kvmlet"]}' >ledger/kvmlet-1-2.claim"#
        ),
        ..USER
    },
    Situation {
        name: "a promise that names a cgroup of others",
        plant: with!(
            r#"echo '{"pid":1,"promise":{"cpu_milli":0,"cpus":null,"memory_bytes":0,"reserved":false},
               "cgroups":["'$CGROUP'"]}' >ledger/kvmlet-1-2.claim"#
        ),
        ..USER
    },
    Situation {
        name: "a lease of an interface of others",
        plant: with!(
            r#"mkdir -m 700 net; echo '{"pid":1,"namespace":'$NAMESPACE',"tap":"victim0","subnet":"192.0.2.0/24",
               "guest":"192.0.2.2","published":[],"dns":null}' >net/192.0.2.0.claim"#
        ),
        ..USER
    },
    Situation {
        name: "notes of a user that are links, FIFOs, directories and garbage",
        plant: with!(
            "cd ledger; ln -s /home/victim/canary a.claim; mkfifo b.claim; mkdir c.claim; ln -s /dev/zero d.claim; \
             head -c 100000 /dev/urandom >e.claim; cd .."
        ),
        ..USER
    },
    Situation {
        name: "a note that is another name of a file",
        plant: with!("ln /home/victim/canary ledger/a.claim"),
        ..USER
    },
    Situation {
        name: "a lock that is another name of a file",
        plant: with!("ln /home/victim/canary ledger/lock"),
        ..USER
    },
    Situation {
        name: "a lock that is a directory",
        plant: with!("mkdir ledger/lock"),
        outcome: Refused(&["cannot use `/home/victim/run/kvmlet/ledger/lock`"]),
        ..USER
    },
    Situation {
        name: "a lock that is a FIFO",
        plant: with!("mkfifo ledger/lock"),
        ..USER
    },
    Situation {
        name: "a roll that is another name of a file",
        plant: with!("ln /home/victim/canary ledger/roll"),
        ..USER
    },
    Situation {
        name: "a roll that leads to a file",
        plant: with!("ln -s /home/victim/canary ledger/roll"),
        ..USER
    },
    Situation {
        name: "a roll that is a FIFO",
        plant: with!("mkfifo ledger/roll"),
        ..USER
    },
    Situation {
        name: "a roll that is garbage",
        plant: with!("head -c 100000 /dev/urandom >ledger/roll"),
        ..USER
    },
    Situation {
        name: "a directory of notes that is a file",
        plant: with!("rmdir ledger; >ledger"),
        outcome: Refused(&["cannot use `/home/victim/run/kvmlet/ledger`"]),
        ..USER
    },
    Situation {
        name: "a directory of notes that leads to the user's home",
        plant: with!("rmdir ledger; ln -s /home/victim ledger"),
        outcome: Refused(&["cannot use `/home/victim/run/kvmlet/ledger`"]),
        ..USER
    },
    Situation {
        name: "a user's offer of CPUID that is a link, and so is the next",
        plant: with!("ln -s /home/victim/canary cpuid; ln -s /home/victim/canary cpuid.new"),
        ..USER
    },
    Situation {
        name: "an offer of CPUID that is another name of a file",
        plant: with!("ln /home/victim/canary cpuid; ln /home/victim/kvmlet/canary cpuid.new"),
        ..USER
    },
    Situation {
        name: "an offer of CPUID that is a directory",
        plant: with!("mkdir cpuid cpuid.new"),
        ..USER
    },
    Situation {
        name: "an offer of CPUID of a processor that does not exist",
        plant: with!("head -c 4096 /dev/zero >cpuid"),
        ..USER
    },
];

pub const SITUATIONS: &[Situation] = &[
    Situation {
        name: "a directory that is not a cgroup",
        plant: r#"mkdir -p -m 700 /run/kvmlet/ledger; cd /run/kvmlet/ledger; mkdir /home/root/kvmlet-1-2;
                echo '{"pid":1,"promise":{"cpu_milli":0,"cpus":null,"memory_bytes":0,"reserved":false},
                "cgroups":["/home/root/empty","/home/root/kvmlet-1-2"]}' >kvmlet-1-2.claim"#,
        ..ROOT
    },
    Situation {
        name: "a cgroup of others, with a process",
        plant: r#"mkdir -p -m 700 /run/kvmlet/ledger; cd /run/kvmlet/ledger;
                echo '{"pid":1,"promise":{"cpu_milli":0,"cpus":null,"memory_bytes":0,"reserved":false},
                "cgroups":["'$CGROUP'"]}' >kvmlet-1-2.claim"#,
        ..ROOT
    },
    Situation {
        name: "a cgroup of others, by a detour",
        plant: r#"mkdir -p -m 700 /run/kvmlet/ledger; cd /run/kvmlet/ledger;
                echo '{"pid":1,"promise":{"cpu_milli":0,"cpus":null,"memory_bytes":0,"reserved":false},
                "cgroups":["'$CGROUP'/kvmlet-1-2/.."]}' >kvmlet-1-2.claim"#,
        ..ROOT
    },
    Situation {
        name: "a cgroup of others, by the name of the note",
        plant: r#"mkdir -p -m 700 /run/kvmlet/ledger; cd /run/kvmlet/ledger;
                echo '{"pid":1,"promise":{"cpu_milli":0,"cpus":null,"memory_bytes":0,"reserved":false},
                "cgroups":["'$CGROUP'"]}' >${CGROUP##*/}.claim"#,
        ..ROOT
    },
    Situation {
        name: "no JSON, too much of it, too deep, and of another kind",
        plant: r#"mkdir -p -m 700 /run/kvmlet/ledger /run/kvmlet/net; cd /run/kvmlet; echo '{' >ledger/a.claim;
                head -c 3000000 /dev/zero >ledger/b.claim; head -c 100000 /dev/zero | tr '\0' '[' >ledger/c.claim;
                echo '[1,[],{}]' >ledger/d.claim; cp ledger/*.claim net; printf '\377' >net/e.claim"#,
        ..ROOT
    },
    Situation {
        name: "notes that are links, FIFOs and directories",
        plant: r#"mkdir -p -m 700 /run/kvmlet/ledger /run/kvmlet/net; cd /run/kvmlet/ledger;
                ln -s /home/root/canary a.claim; mkfifo b.claim; mkdir c.claim; ln -s /dev/zero d.claim;
                cp -a a.claim b.claim c.claim ../net"#,
        ..ROOT
    },
    Situation {
        name: "a lock that is a link",
        plant: "mkdir -p -m 700 /run/kvmlet/ledger; ln -s /home/root/canary /run/kvmlet/ledger/lock",
        outcome: Refused(&["cannot use `/run/kvmlet/ledger/lock`"]),
        ..ROOT
    },
    Situation {
        name: "a directory of notes that is a link",
        plant: "mkdir -m 700 /run/kvmlet; ln -s /home/root /run/kvmlet/ledger",
        outcome: Refused(&["cannot use `/run/kvmlet/ledger`"]),
        ..ROOT
    },
    Situation {
        name: "an offer of CPUID that is a link",
        plant: "mkdir -m 700 /run/kvmlet; ln -s /home/root/canary /run/kvmlet/cpuid; \
                ln -s /home/root/canary /run/kvmlet/cpuid.new",
        ..ROOT
    },
    Situation {
        name: "an offer of CPUID that is a FIFO",
        plant: "mkdir -m 700 /run/kvmlet; mkfifo /run/kvmlet/cpuid",
        ..ROOT
    },
    Situation {
        name: "an offer of CPUID that is garbage",
        plant: "mkdir -m 700 /run/kvmlet; head -c 10000 /dev/urandom >/run/kvmlet/cpuid",
        ..ROOT
    },
    Situation {
        name: "a lease of an interface that is not kvmlet's",
        plant: r#"mkdir -p -m 700 /run/kvmlet/net; cd /run/kvmlet/net;
                echo '{"pid":1,"namespace":'$NAMESPACE',"tap":"victim0","subnet":"192.0.2.0/24","guest":"192.0.2.2",
                "published":["0.0.0.0:80:80"],"dns":null}' >192.0.2.0.claim"#,
        ..ROOT
    },
    Situation {
        name: "a lease with rules in it",
        plant: r#"mkdir -p -m 700 /run/kvmlet/net; cd /run/kvmlet/net;
                echo '{"pid":1,"namespace":'$NAMESPACE',"tap":"kvmlet0\" }\ndelete table ip canary\n#",
                "subnet":"10.107.0.0/30","guest":"10.107.0.2","published":[],"dns":null}' >10.107.0.0.claim"#,
        ..ROOT
    },
    Situation {
        name: "a lease that ends when there is another network",
        plant: r#"mkdir -p -m 700 /run/kvmlet/net; cd /run/kvmlet/net;
                echo '{"pid":1,"namespace":'$NAMESPACE',"tap":"victim0","subnet":"10.107.0.0/30","guest":"10.107.0.2",
                "published":[],"dns":null}' >10.107.0.0.claim"#,
        arguments: &["--net"],
        ..ROOT
    },
];
