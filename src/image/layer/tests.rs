//! What layers say, in the odd ways that images have it.

use super::*;
use crate::tarball::{Head, Tarball, record};

const SMALL: Limits = Limits {
    files: 50,
    depth: 10,
    text: 20_000,
    length: 1 << 20,
};

fn read_all(bytes: &[u8]) -> Result<(Layer, Vec<u8>), Error> {
    read_and_keep(bytes, 100, &SMALL)
}

/// A layer, and its data; the layer is as it is read from the store.
pub(crate) fn read_and_keep(
    bytes: &[u8],
    blocks: u32,
    limits: &Limits,
) -> Result<(Layer, Vec<u8>), Error> {
    let mut blob = Blob::new(Vec::new(), 0, blocks);
    let mut rest = Rest::new(Vec::new(), 1 << 20);
    let mut layer = read(bytes, &mut blob, &mut rest, limits)?;
    let data = blob.into_inner();
    check_archive(&layer, &data, &rest.finish().unwrap());
    let kept = layer.changes.to_bytes();
    layer.changes = Changes::from_bytes(&kept).unwrap();
    assert_eq!(layer.changes.to_bytes(), kept);
    Ok((layer, data))
}

/// What is kept of a layer's archive is all of it.
fn check_archive(layer: &Layer, data: &[u8], rest: &[u8]) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(data).unwrap();
    let mut again = Rebuilt::new(rest, file, data.len() as u64);
    let mut archive = Vec::new();
    again.read_to_end(&mut archive).unwrap();
    assert_eq!(archive.len() as u64, layer.length);
    assert_eq!(crate::Digest::of(&archive).0, layer.digest);
}

fn changes(made: &Tarball) -> Changes {
    read_all(&made.finish()).unwrap().0.changes
}

fn refused(made: &Tarball, part: &str) {
    let error = read_all(&made.finish()).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    let text = format!("{error} {}", cause.unwrap_or_default());
    assert!(text.contains(part), "no {part:?} in {text:?}");
}

fn names(path: &str) -> Path {
    let names = path.split('/').filter(|name| !name.is_empty());
    names
        .map(|name| Name::new(name.as_bytes()).unwrap())
        .collect()
}

/// What is at a path, if anything is.
fn at<'a>(changes: &'a Changes, path: &str) -> Option<&'a Node> {
    let tree = changes.tree();
    let names = names(path);
    let id = tree.at(names.iter().map(Name::as_bytes))?;
    Some(tree.node(id))
}

fn mode(changes: &Changes, path: &str) -> u16 {
    at(changes, path).unwrap().attributes.mode
}

#[test]
fn paths_stay_within_the_root() {
    let mut made = Tarball::default();
    made.file("../../etc/up", b"")
        .file("/abs//./x/../file", b"");
    made.link(b'2', "out", "/etc").link(b'2', "up", "../../..");
    made.file("out/through", b"").file("up/top", b"");
    made.link(b'2', "dangling", "no/where")
        .file("dangling/x", b"");
    made.link(b'1', "passwd", "/../etc/up");
    let changes = changes(&made);
    for path in [
        "etc/up",
        "etc/through",
        "abs/file",
        "top",
        "no/where/x",
        "passwd",
    ] {
        assert!(at(&changes, path).is_some(), "{path}");
    }
    assert!(matches!(
        at(&changes, "out").unwrap().kind,
        Kind::Symlink(_)
    ));
    assert!(at(&changes, "abs/x").is_none());
}

#[test]
fn ways_that_lead_nowhere_are_refused() {
    let mut made = Tarball::default();
    made.link(b'2', "a", "b")
        .link(b'2', "b", "a")
        .file("a/x", b"");
    refused(
        &made,
        "`a/x` at byte 1024 of a layer: the way to it leads through something else: too many levels",
    );
    let mut made = Tarball::default();
    made.link(b'2', "a", &"a/".repeat(48)).file("a/x", b"");
    refused(&made, "too many levels");
    let mut made = Tarball::default();
    made.file("a", b"").file("a/x", b"");
    refused(&made, "not a directory");
    let mut made = Tarball::default();
    made.file("./", b"");
    refused(&made, "the root is not a directory");
    let mut made = Tarball::default();
    made.directory("d", 0o755, 0).link(b'1', "x", "d");
    refused(&made, "a hard link to a directory");
}

#[test]
fn whiteouts_are_of_any_kind() {
    let mut made = Tarball::default();
    made.file("a/.wh.file", b"")
        .link(b'1', "a/.wh.link", "tmp/a")
        .directory("a/.wh.directory", 0o755, 0);
    made.file("b/own", b"")
        .link(b'2', "b/.wh..wh..opq", "x")
        .file("b/.wh..wh.aufs", b"")
        .file(".wh..wh.plnk/1.2", b"");
    let changes = changes(&made);
    let children = changes.tree().children(crate::tree::Tree::ROOT).unwrap();
    let (a, b) = (children[&names("a")[0]], children[&names("b")[0]]);
    let removed: Vec<_> = changes.removed(a).map(Name::as_bytes).collect();
    assert_eq!(removed, [&b"directory"[..], b"file", b"link"]);
    assert!(changes.is_opaque(b) && !changes.is_opaque(a) && changes.is_implied(a));
    assert_eq!(children.len(), 2);
    assert!(changes.tree().children(a).unwrap().is_empty());
    for path in [
        ".wh.",
        "a/.wh..",
        "a/.wh...",
        ".wh.a/b",
        ".wh.a/.wh..wh..opq",
    ] {
        let mut made = Tarball::default();
        made.file(path, b"");
        refused(&made, "not a name that a layer can remove");
    }
}

#[test]
fn a_later_member_takes_an_earlier_ones_place() {
    let mut made = Tarball::default();
    made.file("d/f", b"first")
        .directory("d", 0o700, 7)
        .directory("d/", 0o750, 8);
    made.file("x", b"file")
        .directory("x", 0o711, 0)
        .file("x/in", b"");
    made.file("y/in", b"")
        .link(b'2', "y", "d")
        .file("y/new", b"");
    let changes = changes(&made);
    assert_eq!((mode(&changes, "d"), mode(&changes, "x")), (0o750, 0o711));
    assert_eq!(mode(&changes, ""), 0o755);
    assert!(at(&changes, "d/f").is_some() && at(&changes, "x/in").is_some());
    assert!(at(&changes, "d/new").is_some());
    assert!(matches!(at(&changes, "y").unwrap().kind, Kind::Symlink(_)));
}

#[test]
fn hard_links_are_their_files() {
    let mut made = Tarball::default();
    made.file("bin/app", b"app");
    let mut head = Head::new(b'1', b"x/y/app");
    (head.target, head.mode) = (b"bin/app", 0o4755);
    made.member(&head, b"")
        .link(b'1', "again", "./x/y/app")
        .link(b'1', "bin/app", "again");
    made.link(b'1', "below", "/lib/below")
        .link(b'1', "more", "below");
    let changes = changes(&made);
    let tree = changes.tree();
    let id = |path: &str| tree.at(names(path).iter().map(Name::as_bytes)).unwrap();
    assert!(id("bin/app") == id("x/y/app") && id("again") == id("bin/app"));
    assert_eq!(mode(&changes, "bin/app"), 0o644);
    let links: Vec<_> = changes.links(crate::tree::Tree::ROOT).collect();
    let below = names("lib/below");
    assert_eq!(
        links,
        [(&names("below")[0], &below), (&names("more")[0], &below)]
    );
}

#[test]
fn attributes_are_those_that_the_guest_may_have() {
    let mut made = Tarball::default();
    let records = [
        record("SCHILY.xattr.user.mine", b"1"),
        record("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        record("SCHILY.xattr.user.overlay.whiteout", b"y"),
        record("SCHILY.xattr.btrfs.compression", b"zstd"),
        record("SCHILY.xattr.security.capability", b"\x01\n\0"),
    ];
    made.extended(&records.concat()).file("a", b"");
    let changes = changes(&made);
    let xattrs = at(&changes, "a").unwrap().attributes.xattrs.iter();
    let xattrs: Vec<_> = xattrs
        .map(|(name, value)| (name.to_bytes(), value))
        .collect();
    assert_eq!(
        xattrs,
        [
            (b"user.mine".to_vec(), &b"1"[..]),
            (b"security.capability".to_vec(), b"\x01\n\0")
        ]
    );
}

#[test]
fn bounds_are_kept() {
    let deep = "d/".repeat(11);
    let mut made = Tarball::default();
    made.file(&deep, b"");
    refused(&made, "more than 10 directories in each other");
    let mut made = Tarball::default();
    made.file(&"n".repeat(256), b"");
    refused(&made, "a name of more than 255 bytes");
    let mut made = Tarball::default();
    for number in 0..60 {
        made.file(&format!(".wh.{number}"), b"");
    }
    refused(&made, "more than 50 files");
    let mut made = Tarball::default();
    made.file("large", &[1; 500_000]);
    refused(&made, "content of more than 409600 bytes");
    let mut made = Tarball::default();
    made.extended(&record("SCHILY.xattr.user.a", &[b'x'; 20_000]))
        .file("a", b"");
    refused(&made, "names and attributes of more than 20000 bytes");
    let mut made = Tarball::default();
    made.extended(&record("SCHILY.xattr.user.a", &[b'x'; 19_000]))
        .file("a", b"");
    changes(&made);
    let mut made = Tarball::default();
    made.file("zeros", &[0; 1 << 20]);
    refused(&made, "a layer of more than 1048576 bytes");
    for (kind, part) in [
        (b'2', "a symbolic link of no bytes"),
        (b'3', "not the number of a device"),
    ] {
        let mut head = Head::new(kind, b"x");
        head.device = (4096, 0);
        let mut made = Tarball::default();
        made.member(&head, b"");
        refused(&made, part);
    }
}

#[test]
fn the_digest_is_that_of_all_bytes() {
    let digest = |bytes: &[u8]| {
        let hex = read_all(bytes).unwrap().0.digest;
        hex.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    // The empty layer that Docker knows, 1024 zeros.
    let empty = [0; 1024];
    assert_eq!(
        digest(&empty),
        "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&[&empty[..], b"rest"].concat()).unwrap();
    assert_eq!(
        digest(&encoder.finish().unwrap()),
        digest(&[&empty[..], b"rest"].concat())
    );
}

/// A layer with all that one can have.
fn varied() -> Vec<u8> {
    let mut made = Tarball::default();
    made.directory("d", 0o750, 3).file("d/f", &[1; 9000]);
    made.link(b'1', "d/hard", "d/f").link(b'2', "soft", "d");
    made.file("x/y/z", b"z").file("d/.wh.gone", b"");
    made.file("x/.wh..wh..opq", b"")
        .link(b'1', "below", "some/where");
    made.extended(&record("SCHILY.xattr.user.a", b"value"));
    made.file("more", b"");
    read_all(&made.finish()).unwrap().0.changes.to_bytes()
}

proptest::proptest! {
    #[test]
    fn what_is_kept_is_read_as_it_is_or_not_at_all(
        changes in proptest::collection::vec((0..400_usize, proptest::num::u8::ANY), 1..4),
        cut in 0..400_usize,
    ) {
        let whole = varied();
        proptest::prop_assert!(Changes::from_bytes(&whole[..cut.min(whole.len() - 1)]).is_none());
        let mut bytes = whole;
        for (at, byte) in changes {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        // Whatever it is now, it is a tree, and ends.
        if let Some(read) = Changes::from_bytes(&bytes) {
            let kept = read.to_bytes();
            let again = Changes::from_bytes(&kept).unwrap();
            proptest::prop_assert_eq!(again.to_bytes(), kept);
            let _ = crate::merge::merge([&read, &again]);
        }
    }
}

#[test]
fn directories_that_contain_each_other_are_none() {
    // A root with a directory, whose one name leads to the root or to itself.
    for child in [0, 1] {
        let mut packed = crate::packed::Packed::default();
        let directory = |packed: &mut crate::packed::Packed, child: u64| {
            for number in [0o755, 0, 0, 0, 0, 0, 0, 0, 1] {
                packed.number(number);
            }
            packed.text(b"d");
            packed.number(child);
            packed.number(0);
            packed.number(0);
        };
        packed.number(2);
        directory(&mut packed, 1);
        directory(&mut packed, child);
        assert!(Changes::from_bytes(&packed.0).is_none(), "{child}");
    }
}

#[test]
fn few_bytes_are_not_many_directories() {
    let read = |depth: usize| {
        let mut made = Tarball::default();
        made.directory(&"a/".repeat(depth), 0o755, 0);
        read_and_keep(&made.finish(), 100, &LIMITS)
    };
    read(LIMITS.depth).unwrap();
    let error = read(LIMITS.depth + 1).unwrap_err().to_string();
    assert!(error.contains("more than 256 directories"), "{error}");
    // Paths that links lead to count by their names.
    let links = |count: usize| {
        let mut made = Tarball::default();
        for number in 0..count {
            made.link(b'1', &format!("l{number}"), "b/c/d/e/f/g/h");
        }
        made
    };
    changes(&links(6));
    refused(&links(7), "more than 50 files");
}
