//! What is written, the host's kernel mounts and `fsck.erofs` finds clean.

use super::*;
use crate::blob::{Blob, Stretch};
use crate::mounted;
use crate::tree::{Attributes, Device, Name, Time, XattrName};
use proptest::prelude::*;
use std::collections::BTreeMap;

const WHOLE: u32 = u32::MAX;

fn attributes(mode: u16) -> Attributes {
    Attributes {
        mode,
        uid: 70_000,
        gid: 4_000_000_000,
        mtime: Time {
            seconds: 1_700_000_000,
            nanoseconds: 123_456_789,
        },
        ..Attributes::default()
    }
}

/// A tree with two blobs.
struct Made {
    tree: Tree,
    blobs: Vec<Blob<Vec<u8>>>,
}

impl Made {
    fn new() -> Self {
        Self {
            tree: Tree::new(attributes(0o755)),
            blobs: (0..2)
                .map(|number| Blob::new(Vec::new(), number, WHOLE))
                .collect(),
        }
    }

    fn add(&mut self, directory: NodeId, name: &[u8], mode: u16, kind: Kind) -> NodeId {
        let attributes = attributes(mode);
        let id = self.tree.add(Node { attributes, kind }).unwrap();
        self.link(directory, name, id);
        id
    }

    fn link(&mut self, directory: NodeId, name: &[u8], id: NodeId) {
        let children = self.tree.children_mut(directory).unwrap();
        children.insert(Name::new(name).unwrap(), id);
    }

    fn directory(&mut self, directory: NodeId, name: &[u8]) -> NodeId {
        self.add(directory, name, 0o755, Kind::Directory(BTreeMap::new()))
    }

    fn content(&mut self, blob: usize, size: u64, stretches: &[(u64, &[u8])]) -> Kind {
        let data = stretches
            .iter()
            .map(|(_, data)| *data)
            .collect::<Vec<_>>()
            .concat();
        let stretches: Vec<_> = stretches
            .iter()
            .map(|(offset, data)| Stretch {
                offset: *offset,
                length: data.len() as u64,
            })
            .collect();
        let added = self.blobs[blob].add(size, &stretches, &mut &data[..]);
        Kind::File(added.unwrap())
    }

    fn file(&mut self, directory: NodeId, name: &[u8], data: &[u8]) -> NodeId {
        let kind = self.content(0, data.len() as u64, &[(0, data)]);
        self.add(directory, name, 0o644, kind)
    }

    fn xattr(&mut self, id: NodeId, name: &str, value: &[u8]) {
        let name = XattrName::new(name.as_bytes()).unwrap();
        let attributes = &mut self.tree.node_mut(id).attributes;
        attributes.xattrs.insert(name, value).unwrap();
    }

    fn image(&self) -> Vec<u8> {
        let lengths: Vec<u32> = self.blobs.iter().map(Blob::blocks).collect();
        let image = Image::new(&self.tree, &lengths, b"test").unwrap();
        let mut bytes = Vec::new();
        image.write(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, u64::from(image.blocks()) * BLOCK);
        bytes
    }

    /// It is mounted, and the tree is what is seen.
    fn check(self) {
        let mut image = self.image();
        assert!(image == self.image(), "the same tree gives the same bytes");
        let blobs: Vec<_> = self.blobs.into_iter().map(Blob::into_inner).collect();
        for blob in &blobs {
            image.extend_from_slice(blob);
        }
        mounted::check(&image, &self.tree, &blobs);
    }
}

#[test]
fn an_empty_tree_is_a_root() {
    Made::new().check();
}

#[test]
fn files_of_all_kinds_are_what_they_were() {
    let mut made = Made::new();
    let root = Tree::ROOT;
    let etc = made.directory(root, b"etc");
    made.file(etc, b"empty", b"");
    made.file(etc, b"short", b"short\n");
    made.file(etc, b"block", &[1; 4096]);
    made.file(
        etc,
        b"long",
        &(0..100_000).map(|n| n as u8 | 1).collect::<Vec<_>>(),
    );
    let shell = made.file(etc, b"setuid", b"#!");
    made.tree.node_mut(shell).attributes.mode = 0o6755;
    made.link(root, b"hard", shell);
    made.link(etc, b"harder", shell);
    let kind = made.content(1, 3 << 20, &[(4096, b"data"), (1 << 20, &[3; 9000])]);
    made.add(etc, b"sparse", 0o600, kind);
    let kind = made.content(
        1,
        (1 << 40) + 7,
        &[(1 << 33, b"far"), (1 << 40, b"the end")],
    );
    made.add(etc, b"lastlog", 0o600, kind);
    let kind = made.content(0, 5 << 30, &[]);
    made.add(etc, b"hole", 0o600, kind);
    made.add(root, b"link", 0o777, Kind::Symlink(b"etc/short"[..].into()));
    for length in [3900, 4000, 4095] {
        let target = vec![b'x'; length];
        made.add(
            etc,
            &target[..length - 3880],
            0o777,
            Kind::Symlink(target.clone().into()),
        );
    }
    for (name, major, minor) in [("null", 1, 3), ("large", 4095, 1_048_575), ("none", 0, 0)] {
        let device = Device::new(major, minor).unwrap();
        made.add(root, name.as_bytes(), 0o666, Kind::Character(device));
        made.add(etc, name.as_bytes(), 0o660, Kind::Block(device));
    }
    made.add(root, b"fifo", 0o600, Kind::Fifo);
    made.add(root, b"socket", 0o600, Kind::Socket);
    let old = made.directory(root, b"old");
    made.tree.node_mut(old).attributes.mtime = Time {
        seconds: -5,
        nanoseconds: 999_999_999,
    };
    made.tree.node_mut(old).attributes.mode = 0o1777;
    made.check();
}

#[test]
fn directories_of_any_size_have_all_their_names() {
    let mut made = Made::new();
    for (number, count) in [1_usize, 100, 338, 339, 340, 5000].into_iter().enumerate() {
        let directory = made.directory(Tree::ROOT, &[b'a' + number as u8]);
        let file = made.file(directory, b"first", b"x");
        for number in 0..count {
            made.link(directory, format!("name-{number:05}").as_bytes(), file);
        }
    }
    // Names that are before the dots, and between them; any bytes; and the longest.
    let odd = made.directory(Tree::ROOT, b"odd");
    for byte in 1..=255 {
        if byte != b'/' {
            made.file(odd, &[byte, b'x'], &[byte]);
            made.file(odd, &[byte; 255], &[byte]);
        }
    }
    for name in [
        &b"!"[..],
        b"-",
        b".-",
        b".!",
        b"...",
        b"..!",
        b"\n",
        b"\xff\xfe",
    ] {
        made.file(odd, name, name);
    }
    let mut deep = Tree::ROOT;
    for _ in 0..200 {
        deep = made.directory(deep, b"deep");
    }
    made.check();
}

#[test]
fn extended_attributes_are_kept() {
    let mut made = Made::new();
    let capability =
        b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let ping = made.file(Tree::ROOT, b"ping", b"ping");
    made.xattr(ping, "security.capability", capability);
    // Version 2; owner rw, user 1000 r, group r, mask r, others nothing.
    let acl: Vec<u8> = [2, 0, 0, 0]
        .into_iter()
        .chain([1, 0, 6, 0, 255, 255, 255, 255])
        .chain([2, 0, 4, 0, 0xe8, 3, 0, 0])
        .chain([4, 0, 4, 0, 255, 255, 255, 255])
        .chain([16, 0, 4, 0, 255, 255, 255, 255])
        .chain([32, 0, 0, 0, 255, 255, 255, 255])
        .collect();
    let shared = made.directory(Tree::ROOT, b"shared");
    made.tree.node_mut(shared).attributes.mode = 0o640;
    made.xattr(shared, "system.posix_acl_access", &acl);
    made.xattr(shared, "system.posix_acl_default", &acl);
    let many = made.file(Tree::ROOT, b"many", b"many");
    for number in 0..100 {
        made.xattr(
            many,
            &format!("user.name-{number}"),
            &vec![number; usize::from(number)],
        );
    }
    made.xattr(many, "user.empty", b"");
    // Those of a directory and of a link, whose data is not behind the inode then.
    made.xattr(shared, "trusted.long", &[7; 5000]);
    let link = made.add(
        Tree::ROOT,
        b"link",
        0o777,
        Kind::Symlink(b"many"[..].into()),
    );
    made.xattr(link, "trusted.long", &[8; 9000]);
    let largest = made.file(Tree::ROOT, b"largest", b"x");
    made.xattr(largest, "trusted.a", &[9; 65_000]);
    let kind = made.content(1, 1 << 20, &[(4096, b"data")]);
    let sparse = made.add(Tree::ROOT, b"sparse", 0o600, kind);
    made.xattr(sparse, "user.a", b"odd");
    made.check();
}

#[test]
fn content_that_is_in_no_blob_is_refused() {
    let mut made = Made::new();
    made.file(Tree::ROOT, b"file", &[1; 5000]);
    let refused = |blobs: &[u32]| Image::new(&made.tree, blobs, b"").unwrap_err().to_string();
    assert_eq!(
        refused(&[1]),
        "content at block 0 of blob 0, which has no such block"
    );
    assert_eq!(refused(&[]), refused(&[1]));
    assert_eq!(refused(&[2, u32::MAX]), "an image of 16 TiB or more");
    assert!(Image::new(&made.tree, &[2], b"").is_ok());
}

#[test]
fn what_is_another_image_has_another_uuid() {
    let uuid = |made: &Made, identity: &[u8]| {
        let mut bytes = Vec::new();
        Image::new(&made.tree, &[0, 0], identity)
            .unwrap()
            .write(&mut bytes)
            .unwrap();
        bytes[1024 + 48..][..16].to_vec()
    };
    let mut made = Made::new();
    let first = uuid(&made, b"one");
    assert_ne!(first, uuid(&made, b"two"));
    assert_eq!((first[6] >> 4, first[8] >> 6), (8, 2));
    made.directory(Tree::ROOT, b"more");
    assert_ne!(first, uuid(&made, b"one"));
}

/// How a node of a generated tree is made: under which of the directories, with which name, as what.
type Step = (prop::sample::Index, Vec<u8>, u8, Vec<(u8, u16)>, u16);

fn build(steps: &[Step]) -> Made {
    let mut made = Made::new();
    let mut directories = vec![Tree::ROOT];
    let mut files = Vec::new();
    for (index, name, kind, parts, mode) in steps {
        let parent = directories[index.index(directories.len())];
        if Name::new(name)
            .is_none_or(|name| made.tree.children(parent).unwrap().contains_key(&name))
        {
            continue;
        }
        match kind {
            0..=2 => directories.push(made.directory(parent, name)),
            3 if !files.is_empty() => {
                let file = files[index.index(files.len())];
                made.link(parent, name, file);
            }
            4 => {
                let target = vec![b't'; 1 + usize::from(*mode) % 4095];
                made.add(parent, name, 0o777, Kind::Symlink(target.into()));
            }
            _ => {
                let mut at = 0;
                let data: Vec<_> = parts
                    .iter()
                    .map(|(byte, length)| {
                        let begin = at + u64::from(*byte) * 512;
                        at = begin + u64::from(*length);
                        (begin, vec![*byte; usize::from(*length)])
                    })
                    .collect();
                let data: Vec<_> = data.iter().map(|(at, data)| (*at, &data[..])).collect();
                let content = made.content(usize::from(*kind) % 2, at + u64::from(*mode), &data);
                files.push(made.add(parent, name, *mode, content));
            }
        }
        let last = NodeId::clone(made.tree.children(parent).unwrap().get(&name[..]).unwrap());
        if mode % 3 == 0 && !matches!(made.tree.node(last).kind, Kind::Symlink(_)) {
            made.xattr(last, "user.length", &vec![b'v'; usize::from(*mode) % 5000]);
        }
    }
    made
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_mounted_as_it_is(
        steps in prop::collection::vec(
            (
                any::<prop::sample::Index>(),
                prop::collection::vec(any::<u8>(), 1..40),
                0..10_u8,
                prop::collection::vec((any::<u8>(), 0..20_000_u16), 0..4),
                0..0o7777_u16,
            ),
            0..60,
        )
    ) {
        build(&steps).check();
    }
}
