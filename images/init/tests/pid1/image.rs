//! What an image says or lacks: users and groups by name, and the directories that init mounts something in.

use std::fs;
use std::process::Command;

use kvmlet_contract::{ServiceSpec, User};

use crate::guest::{Guest, is_root, shell, skipped};
use crate::{expect, expect_failure};

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/false\n";
const GROUP: &str = "logs:x:44:other,web\nstaff:x:50:\n";

/// What a service that runs as `user` sees of itself; nothing if there are no other users here.
fn seen_by(user: &str) -> Option<String> {
    if !is_root() {
        skipped("only root may map users other than its own");
        return None;
    }
    let service = ServiceSpec {
        user: Some(User::parse("user", user).unwrap()),
        ..shell("echo $(id -u) $(id -g) $(id -G) $HOME")
    };
    let guest = Guest::with(|guest| guest.service = service)?;
    let guest = guest.file("etc/passwd", PASSWD).file("etc/group", GROUP);
    Some(expect(guest, 0).lines().next().unwrap_or_default().into())
}

#[test]
fn the_service_runs_as_the_user() {
    let cases = [
        ("33:34", "33 34 34 /srv/web"),
        ("web", "33 34 34 44 /srv/web"),
        ("33", "33 34 34 44 /srv/web"),
        ("web:staff", "33 50 50 /srv/web"),
        (":staff", "0 50 50 /root"),
        // Nobody knows them.
        ("777", "777 0 0 /"),
        ("777:888", "777 888 888 /"),
    ];
    for (user, seen) in cases {
        let Some(output) = seen_by(user) else { return };
        assert_eq!(output, seen, "{user}");
    }
}

#[test]
fn a_user_whom_the_image_does_not_know_is_named() {
    let Some(guest) = Guest::new("kvmlet.arg=true kvmlet.user=nginx") else {
        return;
    };
    expect_failure(
        guest.file("etc/passwd", PASSWD),
        125,
        "cannot become user nginx: the image's /etc/passwd has no user \"nginx\"",
    );
}

/// A pipe that nobody writes to, and a directory.
#[test]
fn a_user_database_that_is_none_is_not_waited_for() {
    for node in ["mkfifo", "mkdir"] {
        let Some(guest) = Guest::new("kvmlet.arg=true kvmlet.user=0") else {
            return;
        };
        let path = guest.root.path().join("etc/passwd");
        let made = Command::new(node).arg(path).status();
        assert!(made.unwrap().success());
        expect(guest, 0);
    }
}

#[test]
fn directories_that_the_image_lacks_are_made() {
    let Some(guest) =
        Guest::script("for it in sys run tmp dev/shm dev/pts; do mountpoint /$it; done")
    else {
        return;
    };
    for directory in ["sys", "run", "tmp"] {
        fs::remove_dir(guest.root.path().join(directory)).unwrap();
    }
    let output = expect(guest, 0);
    for directory in ["sys", "run", "tmp", "dev/shm", "dev/pts"] {
        let line = format!("/{directory} is a mountpoint");
        assert!(output.lines().any(|it| it == line), "{output}");
    }
}
