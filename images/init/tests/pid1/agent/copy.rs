//! Files that are copied from a guest, and into it.

use kvmlet_contract::archive::{Modified, Owner, Record};
use kvmlet_contract::channel::{Ended, HEADER, MAX_PAYLOAD, PACK, ProcessSpec, Role, UNPACK};

use super::{end, execute, running};
use crate::guest::{Running, is_root, skipped};
use crate::host::{Host, script};

fn tool(guest: &Running, name: &str, path: &str, input: bool) -> Host {
    let spec = ProcessSpec {
        arguments: [name, path].map(Into::into).into(),
        input,
        ..ProcessSpec::default()
    };
    Host::connect(guest).start(&spec, Role::Tool)
}

/// What a path is packed as.
#[track_caller]
fn packed(guest: &Running, path: &str) -> Vec<u8> {
    let mut host = tool(guest, PACK, path, false);
    let ended = host.ended();
    assert_eq!(
        ended,
        Ended::Code(0),
        "{}",
        String::from_utf8_lossy(&host.stderr)
    );
    host.stdout
}

/// How it ends to unpack that to a path, and what is said.
fn unpacked(guest: &Running, path: &str, stream: &[u8]) -> (u8, String) {
    let mut host = tool(guest, UNPACK, path, true);
    host.input(stream);
    if !host.is_over() {
        host.end_input();
    }
    let (code, _, said) = host.finish();
    (code, said)
}

fn stream(records: &[Record<'_>]) -> Vec<u8> {
    let mut all = Vec::new();
    for record in records {
        let mut wire = [0; HEADER + MAX_PAYLOAD];
        let length = record.encode(&mut wire).unwrap();
        all.extend_from_slice(&wire[..length]);
    }
    all
}

/// Of all sorts, with owners, modes, times, attributes and holes.
const TREE: &str = r#"
set -e
mkdir -p /srv/from/dir/deep/er /srv/from/empty
cd /srv/from
printf hello > plain; : > nothing
yes large | head -c 100000 > dir/large
truncate -s 50M sparse; printf middle | dd of=sparse bs=1M seek=20 conv=notrunc 2>/dev/null
mkfifo -m 666 fifo
ln -s ../../../etc/passwd link; ln -s nowhere dir/broken
name=$(printf '%0255d' 7); echo long > dir/$name; printf a > "$(printf 'odd\n\377')"
echo deep > dir/deep/er/file
setfattr -n user.mine -v 'x y' plain; setfattr -n user.dir -v 1 dir
chown 33:34 plain dir; chown -h 44:50 link; chmod 4751 plain; chmod 2555 dir/deep; chmod 000 nothing
touch -d '2001-02-03 04:05:06.789' plain sparse dir; touch -h -d '1969-01-01 UTC' link
"#;

/// All that is to be the same, of what is in a directory.
fn seen(directory: &str) -> String {
    format!(
        "cd {directory}; find . -printf '%P %m %U %G %y %T@ %l\\n' | sort; find . -type f -printf '%P %s ' -exec cksum {{}} \\; | sort;
         getfattr -R -d -m - . | sort; [ $(stat -c %b sparse) -lt 2000 ] && echo sparse"
    )
}

#[test]
fn a_tree_comes_back_as_it_was() {
    if !is_root() {
        return skipped("only root has more than one user for a guest");
    }
    let Some((guest, service)) = running() else {
        return;
    };
    let (code, _, said) = execute(&guest, &script(TREE)).finish();
    assert_eq!(code, 0, "{said}");
    let stream = packed(&guest, "/srv/from");
    // Holes are not sent.
    assert!(stream.len() < 400_000, "{} bytes", stream.len());
    // Under a name of its own, and into a directory.
    assert_eq!(unpacked(&guest, "/srv/to", &stream), (0, String::new()));
    assert_eq!(unpacked(&guest, "/run", &stream).0, 0);
    let [from, to] = ["/srv/from", "/srv/to"].map(|directory| {
        let mut host = execute(&guest, &script(&seen(directory)));
        assert_eq!(host.ended(), Ended::Code(0));
        String::from_utf8_lossy(&host.stdout).into_owned()
    });
    assert!(
        from.contains("user.mine=\"x y\"") && from.ends_with("sparse\n"),
        "{from}"
    );
    assert_eq!(from, to);
    // Once more over what is there: files are replaced, directories filled.
    let (code, ..) = execute(
        &guest,
        &script("cd /srv/to; echo other > plain; echo mine > dir/mine"),
    )
    .finish();
    assert_eq!(code, 0);
    assert_eq!(unpacked(&guest, "/srv/to/../to/dir/..", &stream).0, 0);
    let nested = execute(
        &guest,
        &script("cat /srv/to/from/plain /srv/to/dir/mine /run/from/plain"),
    )
    .finish();
    assert_eq!(nested.1, "hellomine\nhello");
    // What is in it, into a directory that stays as it is, and into a new one.
    let (code, ..) = execute(
        &guest,
        &script("mkdir -m 751 /srv/full; echo mine > /srv/full/mine; ln -s full /srv/there"),
    )
    .finish();
    assert_eq!(code, 0);
    for path in ["/srv/there/.", "/srv/new/."] {
        assert_eq!(unpacked(&guest, path, &stream), (0, String::new()));
    }
    let filled = execute(
        &guest,
        &script("cd /srv; stat -c %a full new; cat full/mine full/plain new/plain; [ ! -e full/from ] && [ ! -e new/from ]"),
    )
    .finish();
    assert_eq!((filled.0, &*filled.1), (0, "751\n755\nmine\nhellohello"));
    // A single file.
    let single = packed(&guest, "/srv/from/plain");
    assert_eq!(unpacked(&guest, "/srv/to/plain", &single).0, 0);
    let read = execute(
        &guest,
        &script("cat /srv/to/plain; stat -c %a /srv/to/plain"),
    )
    .finish();
    assert_eq!(read.1, "hello4751\n");
    end(guest, service);
}

#[test]
fn what_cannot_be_copied_is_named() {
    let Some((guest, service)) = running() else {
        return;
    };
    for (path, message) in [
        ("/srv/nope", "read \"/srv/nope\": no such file or directory"),
        (
            "/srv/nope/x",
            "open the directory of \"/srv/nope/x\": no such file or directory",
        ),
        ("/", "open the directory of \"/\": invalid argument"),
    ] {
        let (code, out, said) = tool(&guest, PACK, path, false).finish();
        assert_eq!((code, out), (125, String::new()));
        assert_eq!(said, format!("kvmlet-init: cannot {message}\n"));
    }
    let file = Record::File {
        name: b"x",
        size: 1,
    };
    let cases = [
        (
            "/srv/nope/",
            stream(&[]),
            "copy to \"/srv/nope/\": no such file or directory",
        ),
        ("/srv", stream(&[file]), "copy all: it ends before its end"),
        (
            "/srv",
            stream(&[file, Record::End]),
            "copy all: it ends within a directory",
        ),
        (
            "/srv/new/.",
            stream(&[file]),
            "copy what is no directory into \"/srv\": not a directory",
        ),
        (
            "/init/.",
            stream(&[]),
            "copy to \"/init/.\": not a directory",
        ),
        (
            "/proc",
            stream(&[file]),
            "make \"/proc/x\": no such file or directory",
        ),
        (
            "/srv",
            b"GET / HTTP/1.1\r\n".to_vec(),
            "understand what is copied: a frame of",
        ),
    ];
    for (path, stream, message) in cases {
        let (code, said) = unpacked(&guest, path, &stream);
        assert_eq!(code, 125, "{said}");
        assert!(
            said.starts_with(&format!("kvmlet-init: cannot {message}")),
            "{said}"
        );
    }
    end(guest, service);
}

/// A stream that would lead elsewhere. What is there already may be such a trap, too.
#[test]
fn nothing_is_written_elsewhere() {
    let Some((guest, service)) = running() else {
        return;
    };
    let owner = Owner {
        uid: 0,
        gid: 0,
        mode: 0o777,
    };
    let modified = Modified {
        seconds: 0,
        nanoseconds: 0,
    };
    let link = Record::Symlink {
        owner,
        modified,
        name: b"x",
        target: b"/etc",
    };
    let file = Record::File {
        name: b"file",
        size: 3,
    };
    let data = |offset| Record::Data {
        offset,
        bytes: b"bad",
    };
    let directory = |name| Record::Directory { name };
    let leave = Record::Leave(modified);
    let cases = [
        (
            vec![directory(b"d"), link, directory(b"x"), file],
            "go into \"/srv/d/x\": not a directory",
        ),
        (vec![file, data(1)], "write to \"/srv/file\": too large"),
        (
            vec![file, data(0), file],
            "go into \"/srv/file\": not a directory",
        ),
        (
            vec![directory(b"d"), data(0)],
            "write to \"/srv/d\": too large",
        ),
        (vec![leave], "copy what belongs to no file"),
        (vec![data(0)], "copy what belongs to no file"),
        (
            vec![Record::End, directory(b"d")],
            "copy what comes after the end",
        ),
        (vec![directory(b"d"); 300], "go into \"/srv/d/d/d/"),
    ];
    for (records, message) in cases {
        let (code, said) = unpacked(&guest, "/srv", &stream(&records));
        assert_eq!(code, 125, "{said}");
        assert!(
            said.starts_with(&format!("kvmlet-init: cannot {message}")),
            "{said}"
        );
    }
    // A link where a file goes is replaced, and not what it leads to.
    let (code, ..) = execute(
        &guest,
        &script("echo good > /tmp/kept; ln -s /tmp/kept /srv/trap"),
    )
    .finish();
    assert_eq!(code, 0);
    let file = Record::File {
        name: b"trap",
        size: 3,
    };
    let whole = stream(&[file, data(0), Record::Owner(owner), leave, Record::End]);
    assert_eq!(unpacked(&guest, "/srv", &whole), (0, String::new()));
    let kept = execute(&guest, &script("cat /tmp/kept /srv/trap; ls /etc")).finish();
    assert_eq!(kept.1, "good\nbadkvmlet\n");
    end(guest, service);
}

/// Directories that are only on the way to what is copied are made as usual, and stay as they are where they are.
#[test]
fn what_is_on_the_way_stays_as_it_is() {
    let Some((guest, service)) = running() else {
        return;
    };
    let (uid, gid) = (0, 0);
    let owner = |mode| Record::Owner(Owner { uid, gid, mode });
    let leave = Record::Leave(Modified {
        seconds: 1,
        nanoseconds: 0,
    });
    let name = |name: &'static [u8]| Record::Enter { name };
    let file = Record::File {
        name: b"file",
        size: 0,
    };
    let records = [
        Record::Directory { name: b"x" },
        name(b"there"),
        name(b"new"),
        file,
        owner(0o600),
        leave,
        leave,
        leave,
        owner(0o700),
        leave,
        Record::End,
    ];
    let made = execute(
        &guest,
        &script("mkdir -m 1777 -p /srv/there; mkdir /srv/out; ln -s out /srv/link"),
    );
    assert_eq!(made.finish().0, 0);
    assert_eq!(unpacked(&guest, "/srv/.", &stream(&records)).0, 0);
    let seen = "cd /srv; stat -c '%a %Y' there/new/file; stat -c %a there there/new; [ $(stat -c %Y there) -gt 1 ] && ls out";
    let (code, out, _) = execute(&guest, &script(seen)).finish();
    assert_eq!((code, &*out), (0, "600 1\n1777\n755\n"));
    // And no link is followed on the way.
    let through = [Record::Directory { name: b"x" }, name(b"link"), file];
    let (code, said) = unpacked(&guest, "/srv/.", &stream(&through));
    assert!(
        code != 0 && said.contains("go into \"/srv/link\""),
        "{said}"
    );
    end(guest, service);
}
