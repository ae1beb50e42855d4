// Whatever goes wrong in its making, a test has failed.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use kvmlet_contract::archive::{Modified, Owner, Record};
use kvmlet_contract::channel::{HEADER, MAX_PAYLOAD};

use super::super::tests::{PATIENCE, reading, writing};
use super::*;

const OWNER: Owner = Owner {
    uid: 12345,
    gid: 12345,
    mode: 0o4755,
};
const MODIFIED: Modified = Modified {
    seconds: 1_000_000_000,
    nanoseconds: 5,
};

fn stream(records: &[Record<'_>]) -> Vec<u8> {
    let mut all = Vec::new();
    for record in records {
        let mut wire = [0; HEADER + MAX_PAYLOAD];
        let length = record.encode(&mut wire).unwrap();
        all.extend_from_slice(&wire[..length]);
    }
    all
}

/// What comes of copying what a guest sends so, whatever it was asked for.
fn received(stream: Vec<u8>, to: &Path) -> Result<(), CopyError> {
    received_for(b"/srv/x", stream, to)
}

fn received_for(path: &[u8], stream: Vec<u8>, to: &Path) -> Result<(), CopyError> {
    let (mut agent, guest) = writing(stream, Ended::Code(0));
    let copied = agent.copy_from(path, to, Owners::Mine, Some(PATIENCE));
    drop(agent);
    guest.join().unwrap();
    copied
}

/// What a guest is sent.
fn sent(from: &Path, owners: Owners) -> Vec<u8> {
    let (mut agent, guest) = reading();
    agent
        .copy_to(from, b"/srv", owners, Some(PATIENCE))
        .unwrap();
    guest.join().unwrap()
}

fn shell(script: &str, directory: &Path) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let tree = "mkdir -p from/dir/deep from/empty; cd from; printf hello > plain; : > nothing; yes | head -c 100000 > dir/large
        truncate -s 50M sparse; printf middle | dd of=sparse bs=1M seek=20 conv=notrunc 2>/dev/null
        mkfifo -m 644 fifo; ln -s ../../etc/passwd link; printf a > \"$(printf 'odd\\377')\"; chmod 640 plain; chmod 555 dir/deep
        touch -d '2001-02-03 04:05:06.789' plain dir; touch -h -d '1969-01-01 UTC' link";
    shell(tree, place.path());
    let seen = "find . -printf '%P %m %y %T@ %l\\n' | sort; find . -type f -exec cksum {} \\; | sort; [ $(stat -c %b sparse) -lt 2000 ]";
    let from = place.path().join("from");
    let stream = sent(&from, Owners::Mine);
    assert!(stream.len() < 400_000, "{} bytes", stream.len());
    // Under a name of its own, into a directory, and once more over what is there.
    received(stream.clone(), &place.path().join("to")).unwrap();
    fs::create_dir(place.path().join("into")).unwrap();
    for _ in 0..2 {
        received_for(b"/srv/from", stream.clone(), &place.path().join("into")).unwrap();
    }
    let expected = shell(seen, &from);
    assert_eq!(shell(seen, &place.path().join("to")), expected);
    assert_eq!(shell(seen, &place.path().join("into/from")), expected);
    shell("chmod -R u+w .", place.path());
}

/// What the end of a path says.
#[test]
fn directories_are_filled_and_made() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        place
            .path()
            .join("")
            .into_os_string()
            .into_string()
            .unwrap()
            + name
    };
    shell(
        "mkdir -m 750 from; echo a > from/new; mkdir -m 711 full; echo b > full/mine; ln -s full link; echo c > file",
        place.path(),
    );
    let directory = sent(Path::new(&path("from")), Owners::Mine);
    for to in ["link/.", "made/.", "also/"] {
        received(directory.clone(), Path::new(&path(to))).unwrap();
    }
    let seen = shell(
        "stat -c %a full made also; cat full/mine */new; ls -d */from || true",
        place.path(),
    );
    assert_eq!(seen, "711\n750\n750\nb\na\na\na\na\na\n");
    let file = sent(Path::new(&path("file")), Owners::Mine);
    for (stream, to, expected) in [
        (&file, "full/.", "copy what is no directory to"),
        (&file, "none/.", "copy what is no directory to"),
        (&file, "none/", "copy what is no directory to"),
        (&directory, "file", "go into"),
    ] {
        let error = received(stream.clone(), Path::new(&path(to)));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(&format!("cannot {expected} /")),
            "{to}: {error}"
        );
    }
    // Nothing is asked of the guest for these.
    for (to, expected) in [
        ("file/.", "copy to"),
        ("file/", "copy to"),
        ("no/where", "open"),
    ] {
        let error = destination::Destination::find(Path::new(&path(to)));
        let error = error.err().unwrap().to_string();
        assert!(
            error.contains(&format!("cannot {expected} /")),
            "{to}: {error}"
        );
    }
    assert_eq!(
        shell("cat file; ls -d none no || true", place.path()),
        "c\n"
    );
}

#[test]
fn nobodys_rights_come_along() {
    let place = tempfile::tempdir().unwrap();
    let file = Record::File {
        name: b"x",
        size: 3,
    };
    let data = Record::Data {
        offset: 0,
        bytes: b"abc",
    };
    let attribute = Record::Attribute {
        name: b"security.capability",
        value: b"x",
    };
    let records = [
        file,
        data,
        Record::Owner(OWNER),
        attribute,
        Record::Leave(MODIFIED),
        Record::End,
    ];
    received(stream(&records), place.path()).unwrap();
    let file = place.path().join("x").metadata().unwrap();
    assert_eq!(file.permissions().mode() & 0o7777, 0o755);
    assert_eq!(file.uid(), place.path().metadata().unwrap().uid());
    assert_eq!((file.mtime(), file.mtime_nsec()), (1_000_000_000, 5));
    // Nor to a guest.
    fs::set_permissions(place.path().join("x"), PermissionsExt::from_mode(0o6755)).unwrap();
    let sent = sent(&place.path().join("x"), Owners::Mine);
    let owner = Owner {
        uid: 0,
        gid: 0,
        mode: 0o755,
    };
    let wire = stream(&[Record::Owner(owner)]);
    assert!(sent.windows(wire.len()).any(|window| window == wire));
}

/// Neither by names, nor by links of the guest's, nor by links that are there.
#[test]
fn nothing_is_written_elsewhere() {
    let place = tempfile::tempdir().unwrap();
    let (to, kept) = (place.path().join("to"), place.path().join("kept"));
    fs::create_dir(&to).unwrap();
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), "good").unwrap();
    symlink(&kept, to.join("trap")).unwrap();
    symlink(kept.join("file"), to.join("file")).unwrap();
    let target = kept.to_str().unwrap().as_bytes();
    let link = Record::Symlink {
        owner: OWNER,
        modified: MODIFIED,
        name: b"x",
        target,
    };
    let directory = |name| Record::Directory { name };
    let file = |name| Record::File { name, size: 3 };
    let data = |offset| Record::Data {
        offset,
        bytes: b"bad",
    };
    let leave = Record::Leave(MODIFIED);
    let device = Record::Node {
        owner: Owner {
            mode: 0o60_666,
            ..OWNER
        },
        modified: MODIFIED,
        device: 1,
        name: b"sda",
    };
    let cases = [
        (
            vec![directory(b"trap"), file(b"file"), data(0)],
            "cannot go into ",
        ),
        (
            vec![directory(b"d"), link, directory(b"x"), file(b"file")],
            "cannot go into ",
        ),
        (vec![directory(b"..")], "the guest's agent sent a frame "),
        (
            vec![file(b"../kept/file")],
            "the guest's agent sent a frame ",
        ),
        (
            vec![file(b"f"), data(1)],
            "the guest's agent sent more of a file than it has: ",
        ),
        (
            vec![file(b"f"), file(b"g")],
            "the guest's agent sent something in what is no directory: ",
        ),
        (
            vec![data(0)],
            "the guest's agent sent what belongs to no file: ",
        ),
        (
            vec![leave],
            "the guest's agent sent what belongs to no file: ",
        ),
        (
            vec![device],
            "the guest's agent sent a device, which is not made on a host: ",
        ),
        (
            vec![directory(b"d"); 300],
            "the guest's agent sent too many directories in each other: ",
        ),
        (
            vec![file(b"f")],
            "the guest's agent sent less than it has announced: ",
        ),
        (
            vec![directory(b"d"), Record::End],
            "the guest's agent sent an end within a directory: ",
        ),
        (
            vec![Record::End, file(b"f")],
            "the guest's agent sent something behind the end: ",
        ),
        (
            vec![],
            "the guest's agent sent less than it has announced: ",
        ),
    ];
    for (records, expected) in cases {
        let asked = match records[..] {
            [Record::Directory { name: b"trap" }, ..] => b"/srv/trap",
            _ => &b"/srv/x"[..],
        };
        let error = received_for(asked, stream(&records), &to);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        shell("rm -rf x", &to);
    }
    // A link where a file goes is replaced, and not what it leads to.
    let whole = [
        file(b"file"),
        data(0),
        Record::Owner(OWNER),
        leave,
        Record::End,
    ];
    received_for(b"/srv/file", stream(&whole), &to).unwrap();
    assert_eq!(fs::read(to.join("file")).unwrap(), b"bad");
    assert_eq!(fs::read(kept.join("file")).unwrap(), b"good");
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 1);
}

/// As scp's CVE-2019-6111 was.
#[test]
fn a_guest_does_not_choose_the_name_of_a_copy() {
    let place = tempfile::tempdir().unwrap();
    let directory = Record::Directory { name: b".ssh" };
    let file = Record::File {
        name: b".bashrc",
        size: 0,
    };
    let leave = Record::Leave(MODIFIED);
    let all = || shell("find . | sort", place.path());
    received_for(
        b"/srv/report",
        stream(&[file, leave, Record::End]),
        place.path(),
    )
    .unwrap();
    assert_eq!(all(), ".\n./report\n");
    // Nor does it send more than was asked for.
    fs::create_dir(place.path().join("new")).unwrap();
    for to in ["", "new/."] {
        let records = [directory, leave, directory, leave, Record::End];
        let error = received(stream(&records), &place.path().join(to));
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with("the guest's agent sent more than was asked for: "),
            "{error}"
        );
    }
    assert_eq!(all(), ".\n./new\n./report\n./x\n");
    // What has no name has none from it.
    for path in [&b"/"[..], b"/srv/.."] {
        let error = Unpacker::to(place.path(), path, Owners::Mine).err();
        assert!(matches!(error, Some(CopyError::Nameless(_))), "{error:?}");
    }
}

#[test]
fn what_cannot_be_copied_is_named() {
    let place = tempfile::tempdir().unwrap();
    let (mut agent, guest) = writing(Vec::new(), Ended::Code(125));
    let error = agent.copy_from(b"/x", place.path(), Owners::Mine, Some(PATIENCE));
    assert_eq!(error.unwrap_err().to_string(), "the guest \u{fffd}[31mno");
    drop(agent);
    guest.join().unwrap();
    let nowhere = place.path().join("nope");
    let message = format!(
        "cannot read {}: No such file or directory (os error 2)",
        nowhere.display()
    );
    let (mut agent, guest) = reading();
    let error = agent.copy_to(&nowhere, b"/srv", Owners::Mine, Some(PATIENCE));
    assert_eq!(error.unwrap_err().to_string(), message);
    drop(agent);
    guest.join().unwrap();
    let error = Unpacker::to(&nowhere.join("x"), b"/x", Owners::Mine)
        .err()
        .unwrap();
    assert!(error.to_string().starts_with("cannot open "), "{error}");
}
