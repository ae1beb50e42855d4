//! Mounts that a service asks for, and the files that name its machine.

use std::fs;
use std::os::unix::fs::symlink;

use kvmlet_contract::channel::{MountSpec, ProcessSpec, Role};

use crate::guest::Guest;
use crate::host::{guest_with, script};

/// What a service of a guest sees that was changed before, which has these mounts.
fn seen(
    change: impl FnOnce(Guest) -> Guest,
    mounts: Vec<MountSpec>,
    what: &str,
) -> Option<(u8, String)> {
    let (_guest, host) = guest_with(change)?;
    let spec = ProcessSpec {
        mounts,
        hostname: Some("web-1".into()),
        hosts: vec!["10.1.2.3\tdb".into()],
        ..script(what)
    };
    let (code, stdout, stderr) = host.start(&spec, Role::Service).finish();
    Some((code, stdout + &stderr))
}

fn tmpfs(target: &str, options: &str) -> MountSpec {
    MountSpec {
        source: b"tmpfs".into(),
        target: target.into(),
        fstype: b"tmpfs".into(),
        options: options.into(),
        ..MountSpec::default()
    }
}

#[test]
fn places_are_made_where_links_lead_to_within_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let canary = outside.path().join("canary");
    let links = [
        ("srv/absolute", "/var/there"),
        ("srv/relative", "../var/here/"),
        ("srv/out", "../../../../../../../var/kept"),
        ("srv/host", outside.path().to_str().unwrap()),
    ];
    let with_links = |guest: Guest| {
        for (link, target) in links {
            symlink(target, guest.root.path().join(link)).unwrap();
        }
        guest
    };
    let mounts = ["absolute/a b", "relative/x/../y", "out", "host/canary"]
        .map(|path| tmpfs(&format!("/srv/{path}"), "size=1m,mode=0700"));
    let script = r#"cd /var/there/a* && stat -c '%a' . && stat -f -c '%T %b %S' . && mountpoint -q /var/here/y &&
        mountpoint -q /var/kept && ls / | tr '\n' ' '"#;
    let Some((code, said)) = seen(with_links, mounts.to_vec(), script) else {
        return;
    };
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("700\ntmpfs 256 4096\n"), "{said}");
    assert!(!canary.exists(), "{said}");
}

#[test]
fn a_link_that_leads_to_itself_and_a_file_are_no_places() {
    let with_both = |guest: Guest| {
        symlink("loop", guest.root.path().join("srv/loop")).unwrap();
        guest.file("srv/file", "")
    };
    for (target, error) in [
        ("/srv/loop/x", "too many symbolic links"),
        ("/srv/file", "not a directory"),
        ("/", "over the root"),
    ] {
        let Some((guest, host)) = guest_with(with_both) else {
            return;
        };
        let spec = ProcessSpec {
            mounts: vec![tmpfs(target, "")],
            ..script("true")
        };
        let said = format!("{:?}", host.start(&spec, Role::Service).next());
        assert!(said.contains(error), "{said}");
        drop(guest);
    }
}

#[test]
fn a_disk_that_is_not_there_is_named() {
    let Some((_guest, host)) = guest_with(|guest| guest) else {
        return;
    };
    let spec = ProcessSpec {
        mounts: vec![MountSpec {
            source: b"serial:nowhere".into(),
            fstype: b"ext4".into(),
            ..tmpfs("/data", "")
        }],
        ..script("true")
    };
    let said = format!("{:?}", host.start(&spec, Role::Service).next());
    assert!(
        said.contains("mount on /data: no disk has the serial number nowhere"),
        "{said}"
    );
}

#[test]
fn what_names_the_machine_follows_no_link() {
    let with_links = |guest: Guest| {
        let etc = guest.root.path().join("etc");
        symlink("/srv/precious", etc.join("hosts")).unwrap();
        symlink("nowhere/at/all", etc.join("hostname")).unwrap();
        guest.file("srv/precious", "kept\n")
    };
    let script = "cat /etc/hostname /etc/hosts /srv/precious";
    let Some((_, said)) = seen(with_links, Vec::new(), script) else {
        return;
    };
    let expected = "web-1\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                    127.0.1.1\tweb-1\n10.1.2.3\tdb\nkept\n";
    assert_eq!(said, expected);
}

#[test]
fn an_image_without_etc_has_one() {
    let without = |guest: Guest| {
        fs::remove_dir_all(guest.root.path().join("etc")).unwrap();
        guest
    };
    let Some((_, said)) = seen(without, Vec::new(), "cat /etc/hostname") else {
        return;
    };
    assert_eq!(said, "web-1\n");
}

/// Also where the image lacks the places of what init itself mounts.
#[test]
fn a_root_that_is_read_only_has_what_it_lacks_in_a_layer() {
    let read_only = |mut guest: Guest| {
        symlink("/nowhere", guest.root.path().join("etc/hosts")).unwrap();
        guest.read_only = true;
        guest.file("srv/kept", "kept\n")
    };
    let mounts = vec![tmpfs("/data/x", "size=1m"), tmpfs("/data/x/y", "")];
    let script = "mountpoint -q /data/x/y && mountpoint -q /proc && mountpoint -q /dev/shm && cat /etc/hostname /srv/kept &&
        grep -c db /etc/hosts; for it in tmp run data/x dev/shm; do echo >/$it/new && echo $it; done; echo >/new";
    let Some((code, said)) = seen(read_only, mounts, script) else {
        return;
    };
    let expected = "web-1\nkept\n1\ntmp\nrun\ndata/x\ndev/shm\n";
    assert!(said.starts_with(expected), "{said}");
    assert!(code != 0 && said.contains("ead-only file system"), "{said}");
}
