//! Files that a user names, and others have put there.

use super::{PLAIN, Refused, Situation, Who};

const PUT_THERE: super::Outcome = Refused(&["was put there by uid 23001", "directory of your own"]);
const STATS: &[&str] = &["--stats", "/tmp/stats.json"];

pub const SITUATIONS: &[Situation] = &[
    Situation {
        name: "a link to a file of the victim",
        attack: "ln -s /home/victim/canary /tmp/stats.json",
        arguments: STATS,
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a link to a file that is not there yet",
        attack: "ln -s /home/victim/.profile /tmp/stats.json",
        arguments: STATS,
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a link to a directory",
        attack: "ln -s /home/victim /tmp/stats.json",
        arguments: STATS,
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a file that the attacker reads later",
        attack: ">/tmp/stats.json; chmod 666 /tmp/stats.json",
        arguments: STATS,
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a FIFO that the attacker reads",
        attack: "mkfifo -m 666 /tmp/stats.json",
        meanwhile: "exec cat /tmp/stats.json",
        arguments: STATS,
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a directory in place of a file",
        attack: "mkdir -m 777 /tmp/stats.json",
        arguments: STATS,
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a socket that the attacker listens at",
        attack: "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"/tmp/stats.json\", Listen => 1) or die'",
        arguments: STATS,
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a link to standard input of whoever opens it",
        attack: "ln -s /proc/self/fd/0 /tmp/stats.json",
        arguments: STATS,
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a link at a name that kvmlet once wrote to first",
        attack: "ln -s /home/victim/canary /tmp/stats.new",
        arguments: &["--stats", "/home/victim/kvmlet/../../../tmp/stats.new"],
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a link on the way",
        attack: "ln -s /home/victim /tmp/link",
        arguments: &["--stats", "/tmp/link/canary"],
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a link that leads to another one",
        plant: "ln -s /tmp/link /home/victim/stats.json; chown -h $V /home/victim/stats.json",
        attack: "ln -s /home/victim/canary /tmp/link",
        arguments: &["--stats", "/home/victim/stats.json"],
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a link in a user's own directory, for root",
        who: Who::Root,
        attack: "ln -s /home/root/canary /home/attacker/stats.json",
        arguments: &["--stats", "/home/attacker/stats.json"],
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a link for root",
        who: Who::Root,
        attack: "ln -s /home/root/canary /tmp/stats.json",
        arguments: STATS,
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "a file for root",
        who: Who::Root,
        attack: ">/tmp/stats.json; chmod 666 /tmp/stats.json",
        arguments: STATS,
        outcome: PUT_THERE,
        ..PLAIN
    },
    Situation {
        name: "another name of a file of the victim's",
        plant: "mkdir -p -m 700 /home/victim/run/kvmlet; ln /home/victim/canary /home/victim/run/kvmlet/stats.json; \
                chown $V /home/victim/run /home/victim/run/kvmlet",
        arguments: &["--stats", "/home/victim/run/kvmlet/stats.json"],
        ..PLAIN
    },
    Situation {
        name: "a device",
        who: Who::Root,
        arguments: &["--stats", super::scene::NULL],
        ..PLAIN
    },
    Situation {
        name: "a file of another user",
        arguments: &["--stats", "/home/root/canary"],
        outcome: Refused(&["cannot write to `/home/root/canary`", "permission denied"]),
        ..PLAIN
    },
    Situation {
        name: "a file that the victim may not write",
        plant: "chmod 444 /home/victim/canary",
        arguments: &["--stats", "/home/victim/canary"],
        outcome: Refused(&["cannot write to `/home/victim/canary`", "permission denied"]),
        ..PLAIN
    },
];
