//! Archives by this host's tar, and records by hand.

use super::*;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const OWNER: Owner = Owner {
    uid: 7,
    gid: 8,
    mode: 0o640,
};
const MODIFIED: Modified = Modified {
    seconds: 1_000_000_000,
    nanoseconds: 5,
};
const AHEAD: Record<'static> = Record::Ahead {
    owner: OWNER,
    modified: MODIFIED,
};

/// The archive that is made of what a guest sends.
fn archived(records: &[Record<'_>], content: bool) -> Result<Vec<u8>, String> {
    let (from, to) = UnixStream::pair().unwrap();
    let mut writer = Writer::new(to);
    for record in records {
        writer.tell(record).unwrap();
    }
    writer.flush().unwrap();
    drop(writer);
    let mut builder = Builder::new(Vec::new());
    let made = archive(&mut Records::new(from), content, &mut builder);
    made.map_err(|error| error.to_string())?;
    Ok(builder.into_inner().unwrap())
}

/// What this host's tar does with an archive.
fn tar(arguments: &[&str], input: Vec<u8>, directory: &Path) -> String {
    let mut child = Command::new("tar")
        .args(arguments)
        .current_dir(directory)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writing.join().unwrap();
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a guest is told of an archive: a line a record.
fn told(archive: &[u8], owners: Owners) -> Result<Vec<String>, String> {
    let (from, to) = UnixStream::pair().unwrap();
    let reading = std::thread::spawn(move || {
        let mut reader = Records::new(from);
        let mut lines = Vec::new();
        while let Ok(record) = reader.take() {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            lines.push(match record.get() {
                Record::Directory { name } => format!("directory {}", text(name)),
                Record::Enter { name } => format!("enter {}", text(name)),
                Record::File { name, size } => format!("file {} {size}", text(name)),
                Record::Data { offset, bytes } => format!("data {offset} {}", bytes.len()),
                Record::Owner(Owner { uid, gid, mode }) => format!("owner {uid}:{gid} {mode:o}"),
                Record::Symlink { name, target, .. } => {
                    format!("link {} {}", text(name), text(target))
                }
                Record::Node { owner, device, .. } => format!("node {:o} {device}", owner.mode),
                Record::Attribute { name, value } => {
                    format!("attribute {} {}", text(name), text(value))
                }
                Record::Leave(_) => "leave".into(),
                Record::End => "end".into(),
                Record::Ahead { .. } => "ahead".into(),
            });
        }
        lines
    });
    let mut unpacking = Unpacking {
        records: Writer::new(to),
        open: Vec::new(),
        owners,
    };
    let done = unpacking.all(archive);
    drop(unpacking);
    let lines = reading.join().unwrap();
    done.map(|()| lines).map_err(|error| error.0.to_string())
}

#[test]
fn what_a_guest_sends_becomes_an_archive() {
    let long = [b'n'; 200];
    let data = vec![b'x'; 5000];
    let hole = Record::File {
        name: b"sparse",
        size: 3 << 20,
    };
    let records = [
        Record::Directory { name: b"etc" },
        AHEAD,
        Record::File {
            name: b"plain",
            size: 5000,
        },
        AHEAD,
        Record::Data {
            offset: 0,
            bytes: &data,
        },
        Record::Owner(OWNER),
        Record::Leave(MODIFIED),
        Record::Directory { name: &long },
        AHEAD,
        hole,
        AHEAD,
        Record::Data {
            offset: 1 << 20,
            bytes: b"middle",
        },
        Record::Owner(OWNER),
        Record::Attribute {
            name: b"user.x",
            value: b"y",
        },
        Record::Leave(MODIFIED),
        Record::Owner(OWNER),
        Record::Leave(MODIFIED),
        Record::Symlink {
            owner: OWNER,
            modified: MODIFIED,
            name: b"link",
            target: b"../../etc/passwd",
        },
        Record::Node {
            owner: Owner {
                mode: 0o010_600,
                ..OWNER
            },
            modified: MODIFIED,
            device: 0,
            name: b"fifo",
        },
        Record::Owner(OWNER),
        Record::Leave(MODIFIED),
        Record::End,
    ];
    let archive = archived(&records, false).unwrap();
    let place = tempfile::tempdir().unwrap();
    let list = tar(&["-tv", "--numeric-owner"], archive.clone(), place.path());
    let list: Vec<String> = list
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let deep = format!("etc/{}", "n".repeat(200));
    assert_eq!(
        list,
        [
            "drw-r----- 7/8 0 2001-09-09 01:46 etc/".to_owned(),
            "-rw-r----- 7/8 5000 2001-09-09 01:46 etc/plain".into(),
            format!("drw-r----- 7/8 0 2001-09-09 01:46 {deep}/"),
            format!("-rw-r----- 7/8 3145728 2001-09-09 01:46 {deep}/sparse"),
            "lrw-r----- 7/8 0 2001-09-09 01:46 etc/link -> ../../etc/passwd".into(),
            "prw------- 7/8 0 2001-09-09 01:46 etc/fifo".into(),
        ]
    );
    let sparse = tar(&["-xO", &format!("{deep}/sparse")], archive, place.path());
    assert_eq!(sparse.len(), 3 << 20);
    assert_eq!(sparse.trim_matches('\0'), "middle");
    let content = archived(&records, true).unwrap();
    let list = tar(&["-t"], content, place.path());
    assert!(list.starts_with("./\nplain\nnnn"), "{list}");
}

/// Whatever it sends, no path in an archive leads out of it, and none is longer than it said.
#[test]
fn a_guest_that_lies_makes_no_archive() {
    let file = Record::File {
        name: b"x",
        size: 4,
    };
    let data = |offset, bytes| Record::Data { offset, bytes };
    let (end, leave) = (Record::End, Record::Leave(MODIFIED));
    for records in [
        &[][..],
        &[file, AHEAD],
        &[file, end],
        &[file, AHEAD, data(0, b"xxxxx"), leave, end],
        &[file, AHEAD, data(2, b"x"), data(1, b"x"), leave, end],
        &[file, AHEAD, data(0, b"x"), end],
        &[file, AHEAD, file, AHEAD, leave, leave, end],
        &[leave, end],
        &[AHEAD],
        &[Record::Owner(OWNER)],
        &[Record::Enter { name: b"x" }, leave, end],
        &[
            Record::Node {
                owner: OWNER,
                modified: MODIFIED,
                device: 0,
                name: b"x",
            },
            end,
        ],
    ] {
        let made = archived(records, false);
        assert!(made.is_err(), "{records:?}");
    }
    // Of a file that has become shorter meanwhile what is missing is zeros.
    assert!(archived(&[file, AHEAD, data(0, b"x"), leave, end], false).is_ok());
}

fn made(script: &str) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let made = Command::new("sh")
        .args(["-ec", script])
        .current_dir(place.path())
        .status()
        .unwrap();
    assert!(made.success());
    let path = place.path().join("archive");
    (place, path)
}

#[test]
fn an_archive_becomes_what_a_guest_makes_files_of() {
    let (_place, path) = made(
        "mkdir -p a/b c; echo hello >a/b/file; chmod 4750 a/b/file; ln -s ../x c/link; mkfifo c/fifo
         truncate -s 20000 c/holes; printf end >>c/holes
         tar --hard-dereference --numeric-owner --owner 7 --group 8 -cf archive a c/link c/fifo c/holes ./a/b",
    );
    let archive = std::fs::read(path).unwrap();
    let lines = told(&archive, Owners::Mine).unwrap();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let expected = "directory archive|directory a|directory b|file file 6|data 0 6|owner 0:0 750|leave|owner 0:0 755|leave|owner 0:0 755|leave|\
                    enter c|link link ../x|node 10644 0|file holes 20003|data 16384 3619|owner 0:0 644|leave|leave|\
                    enter a|directory b|file file 6|data 0 6|owner 0:0 750|leave|owner 0:0 755|leave|leave|owner 0:0 755|leave|end";
    assert_eq!(lines.join("|"), expected);
    let lines = told(&archive, Owners::Theirs).unwrap();
    assert!(lines.contains(&"owner 7:8 4750".into()), "{lines:?}");
}

#[test]
fn an_archive_that_leads_elsewhere_is_refused() {
    let entry = |path: &str, kind: EntryType, target: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        if let Some(target) = target {
            header.set_link_name_literal(target).unwrap();
        }
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, io::empty()).unwrap();
        builder.into_inner().unwrap()
    };
    for (archive, expected) in [
        (
            entry("../x", EntryType::Regular, None),
            "`../x` leads out of the archive",
        ),
        (
            entry("a/../../x", EntryType::Directory, None),
            "leads out of the archive",
        ),
        (
            entry("x", EntryType::Link, Some("/etc/passwd")),
            "is a hard link",
        ),
        (
            entry("x", EntryType::new(b'V'), None),
            "is of a kind that is not copied",
        ),
        (
            entry("a\u{1b}]0;/../..", EntryType::Regular, None),
            "`a\\u{1b}]0;/../..` leads out",
        ),
        (vec![b'x'; 1024], ""),
        (entry("x", EntryType::Regular, None)[..300].to_vec(), ""),
    ] {
        let error = told(&archive, Owners::Theirs).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    // A name that begins at the root is one in the archive, and that of the directory itself is none.
    for (path, expected) in [("/etc/x", "enter etc|file x 0"), ("x", "file x 0")] {
        let lines = told(&entry(path, EntryType::Regular, None), Owners::Mine).unwrap();
        assert!(
            lines
                .join("|")
                .starts_with(&format!("directory archive|{expected}|owner")),
            "{lines:?}"
        );
    }
    let lines = told(&entry("./", EntryType::Directory, None), Owners::Mine).unwrap();
    assert_eq!(lines.join("|"), "directory archive|owner 0:0 755|leave|end");
    let nothing = Builder::new(Vec::new()).into_inner().unwrap();
    assert_eq!(told(&nothing, Owners::Mine).unwrap().last().unwrap(), "end");
}

#[test]
fn an_archive_that_is_cut_off_between_entries_is_not_whole() {
    let mut builder = Builder::new(Vec::new());
    for name in ["one", "two"] {
        let mut header = records::About {
            owner: OWNER,
            modified: MODIFIED,
        }
        .header(EntryType::Regular);
        header.set_size(3);
        builder.append_data(&mut header, name, &b"abc"[..]).unwrap();
    }
    let whole = builder.into_inner().unwrap();
    assert_eq!(whole.len(), 2 * 1024 + 2 * 512);
    told(&whole, Owners::Mine).unwrap();
    // After no entry, one, all, and half of the end.
    for length in [0, 1024, 2048, 2560] {
        let error = told(&whole[..length], Owners::Mine).unwrap_err();
        assert!(error.contains("cut off"), "{length}: {error}");
    }
}
