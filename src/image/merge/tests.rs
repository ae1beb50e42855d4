//! Stacks of layers, as they are and as the kernel mounts them.

mod model;

use super::*;
use crate::erofs::Image;
use crate::layer::LIMITS;
use crate::layer::tests::read_and_keep;
use crate::mounted;
use crate::tarball::Tarball;
use crate::tree::Attributes;

/// The tree of archives, and the blobs with the content.
fn stack(layers: &[Tarball]) -> Result<(Tree, Vec<Vec<u8>>), Error> {
    let mut blobs = Vec::new();
    let mut changes = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let (layer, data) = read_and_keep(&layer.finish(), u32::MAX, &LIMITS).unwrap();
        assert_eq!(changes.len(), number);
        changes.push(layer.changes);
        blobs.push(data);
    }
    Ok((merge(&changes)?, blobs))
}

fn mount(tree: &Tree, blobs: &[Vec<u8>]) {
    let lengths: Vec<u32> = blobs
        .iter()
        .map(|blob| (blob.len() / 4096) as u32)
        .collect();
    let mut bytes = Vec::new();
    Image::new(tree, &lengths, b"")
        .unwrap()
        .write(&mut bytes)
        .unwrap();
    bytes.extend(blobs.concat());
    mounted::check(&bytes, tree, blobs);
}

/// What a test sees of a file: a directory, or content; its attributes; and which name it had first.
type Seen = (String, Attributes, String);

/// All paths of a tree.
fn seen(tree: &Tree, blobs: &[Vec<u8>]) -> BTreeMap<String, Seen> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![(String::new(), Tree::ROOT)];
    let mut ids: Vec<(String, NodeId)> = Vec::new();
    while let Some((path, id)) = waiting.pop() {
        ids.push((path.clone(), id));
        for (name, child) in tree.children(id).into_iter().flatten() {
            waiting.push((format!("{path}/{}", name.as_bytes().escape_ascii()), *child));
        }
    }
    ids.sort();
    let mut first: BTreeMap<NodeId, String> = BTreeMap::new();
    for (path, id) in ids {
        let node = tree.node(id);
        let what = match &node.kind {
            Kind::Directory(_) => "directory".into(),
            Kind::File(content) => String::from_utf8(mounted::bytes(content, blobs)).unwrap(),
            Kind::Symlink(target) => format!("-> {}", target.escape_ascii()),
            other => format!("{other:?}"),
        };
        let name = first.entry(id).or_insert_with(|| path.clone()).clone();
        all.insert(path, (what, node.attributes.clone(), name));
    }
    all
}

/// What is at each path: contents and modes, in one line each.
fn lines(layers: &[Tarball]) -> Vec<String> {
    let (tree, blobs) = stack(layers).unwrap();
    mount(&tree, &blobs);
    let lines = seen(&tree, &blobs).into_iter();
    lines
        .map(|(path, (what, attributes, _))| {
            format!("{path} {what} {:o} {}", attributes.mode, attributes.uid)
        })
        .collect()
}

fn layer(make: impl FnOnce(&mut Tarball)) -> Tarball {
    let mut made = Tarball::default();
    make(&mut made);
    made
}

#[test]
fn implied_directories_are_those_of_the_layers_below() {
    let below = layer(|it| {
        it.directory("opt", 0o750, 7);
    });
    let above = layer(|it| {
        it.file("opt/d/f", b"f");
    });
    let expected = [
        " directory 755 0",
        "/opt directory 750 7",
        "/opt/d directory 755 0",
        "/opt/d/f f 644 0",
    ];
    assert_eq!(lines(&[below, above]), expected);
}

#[test]
fn a_layer_removes_what_is_below_and_nothing_of_its_own() {
    let below = layer(|it| {
        it.file("root/a/old", b"old")
            .file("root/b", b"b")
            .file("keep/x", b"x");
    });
    let middle = layer(|it| {
        it.file("root/a/new", b"new")
            .file("root/.wh.a", b"")
            .file("keep/own", b"own");
        it.file("keep/.wh..wh..opq", b"")
            .file("root/.wh.nothing", b"");
    });
    let above = layer(|it| {
        it.file("root/a/.wh.new", b"").directory("root/a", 0o700, 3);
    });
    let both = [
        " directory 755 0",
        "/keep directory 755 0",
        "/keep/own own 644 0",
        "/root directory 755 0",
        "/root/a directory 755 0",
        "/root/a/new new 644 0",
        "/root/b b 644 0",
    ];
    assert_eq!(lines(&[below.clone(), middle.clone()]), both);
    let mut all = both.to_vec();
    all[4] = "/root/a directory 700 3";
    all.remove(5);
    assert_eq!(lines(&[below, middle, above]), all);
}

#[test]
fn a_layer_replaces_what_is_of_another_kind() {
    let below = layer(|it| {
        it.link(b'2', "lib", "usr/lib")
            .file("usr/lib/x", b"x")
            .file("d/in", b"in")
            .file("f", b"f");
    });
    let above = layer(|it| {
        it.file("lib/own", b"own")
            .file("d", b"file")
            .directory("f", 0o711, 1);
    });
    let expected = [
        " directory 755 0",
        "/d file 644 0",
        "/f directory 711 1",
        "/lib directory 755 0",
        "/lib/own own 644 0",
        "/usr directory 755 0",
        "/usr/lib directory 755 0",
        "/usr/lib/x x 644 0",
    ];
    assert_eq!(lines(&[below, above]), expected);
}

#[test]
fn hard_links_lead_into_layers_below() {
    let below = layer(|it| {
        it.file("usr/bin/ping", b"ping")
            .link(b'2', "bin", "usr/bin")
            .file("perl", b"5")
            .file("perl5", b"5");
    });
    let above = layer(|it| {
        it.file("perl", b"6").link(b'1', "perl5", "perl");
        it.link(b'1', "pong", "bin/ping")
            .file("usr/bin/.wh.ping", b"");
    });
    let (tree, blobs) = stack(&[below.clone(), above]).unwrap();
    mount(&tree, &blobs);
    let seen = seen(&tree, &blobs);
    assert_eq!((&*seen["/perl5"].0, &*seen["/perl5"].2), ("6", "/perl"));
    assert_eq!(seen["/pong"].0, "ping");
    assert!(!seen.contains_key("/usr/bin/ping"));
    for (target, why) in [
        (
            "no/such",
            "a hard link to `/no/such`, which neither this layer nor one below has",
        ),
        ("usr/bin", "a hard link to `/usr/bin`, which is a directory"),
        ("perl/x", "leads through something else: not a directory"),
    ] {
        let above = layer(|it| {
            it.link(b'1', "d/link", target);
        });
        let error = stack(&[below.clone(), above]).unwrap_err().to_string();
        assert!(
            error.starts_with("layer 2: `/d/link` is") && error.contains(why),
            "{error}"
        );
    }
}

#[test]
fn no_layers_are_an_empty_root() {
    assert_eq!(lines(&[]).len(), 1);
    assert_eq!(lines(&[Tarball::default()]), [" directory 755 0"]);
}

#[test]
fn all_layers_together_are_bounded() {
    let layer = |first: usize, count: usize| {
        let mut made = Tarball::default();
        for number in first..first + count {
            made.file(&format!("{number}"), b"");
        }
        let (layer, _) = read_and_keep(&made.finish(), u32::MAX, &LIMITS).unwrap();
        layer.changes
    };
    let mut merged = Merged::new(61);
    merged.add(&layer(0, 30)).unwrap();
    merged.add(&layer(30, 30)).unwrap();
    // Files that take others' places count, too: they are in memory.
    let error = merged.add(&layer(0, 1)).unwrap_err().to_string();
    assert!(error.contains("more than 61 files"), "{error}");
}
