//! Generated stacks against a model of the specification.

use super::*;
use crate::tarball::Head;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A member of a generated layer: what it is, a path, another path, and something for its attributes.
type Step = (u8, Vec<u8>, Vec<u8>, u16);

/// A file of the model. Its identity is what hard links share.
#[derive(Clone, Debug, PartialEq)]
struct File {
    directory: bool,
    implied: bool,
    what: String,
    attributes: Attributes,
    identity: usize,
}

type Files = BTreeMap<String, File>;

/// The specification, put plainly: a layer's own files by path, and the paths that it takes from below.
#[derive(Default)]
struct Model {
    own: Files,
    removed: BTreeSet<String>,
    opaque: BTreeSet<String>,
}

/// The paths above a path, the root first.
fn above(path: &str) -> Vec<&str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).collect()
}

fn is_under(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.starts_with('/'))
}

impl Model {
    fn is_blocked(&self, path: &str) -> bool {
        above(path)
            .iter()
            .any(|it| self.own.get(*it).is_some_and(|file| !file.directory))
    }

    fn imply(&mut self, path: &str, identity: &mut usize) {
        for directory in above(path) {
            *identity += 1;
            self.own.entry(directory.into()).or_insert_with(|| File {
                directory: true,
                implied: true,
                what: "directory".into(),
                attributes: Attributes {
                    mode: 0o755,
                    ..Attributes::default()
                },
                identity: *identity,
            });
        }
    }

    fn add(&mut self, path: &str, file: File) {
        if !file.directory {
            self.own.retain(|it, _| !is_under(it, path));
            self.removed.retain(|it| !is_under(it, path));
            self.opaque.retain(|it| it != path && !is_under(it, path));
        }
        let before = self.own.get(path).filter(|before| before.directory);
        let identity = before
            .filter(|_| file.directory)
            .map_or(file.identity, |it| it.identity);
        self.own.insert(path.into(), File { identity, ..file });
    }

    /// What a container sees of this layer on those below.
    fn on(&self, below: &Files) -> Files {
        let is_gone = |path: &str| {
            let removed = self
                .removed
                .iter()
                .any(|it| path == it || is_under(path, it));
            let hidden = self.opaque.iter().any(|it| is_under(path, it));
            let file = |it: &str| self.own.get(it).is_some_and(|own| !own.directory);
            removed || hidden || above(path).iter().any(|it| file(it)) || file(path)
        };
        let mut all: Files = below.clone();
        all.retain(|path, _| !is_gone(path));
        for (path, file) in &self.own {
            match all.get_mut(path) {
                Some(there) if there.directory && file.directory => {
                    if !file.implied {
                        there.attributes = file.attributes.clone();
                    }
                }
                _ => {
                    all.insert(path.clone(), file.clone());
                }
            }
        }
        all
    }
}

fn path(letters: &[u8]) -> String {
    letters
        .iter()
        .map(|letter| format!("/{}", char::from(b'a' + letter)))
        .collect()
}

/// The same steps as an archive and in the model; those that no layer can have are left out.
fn model(steps: &[Step], below: &Files, identity: &mut usize) -> (Tarball, Model) {
    let (mut made, mut model) = (Tarball::default(), Model::default());
    for (kind, at, other, number) in steps {
        let (at, other) = (path(at), path(other));
        if model.is_blocked(&at) {
            continue;
        }
        *identity += 1;
        let mut head = Head::new(b'0', at.as_bytes());
        (head.mode, head.uid) = (u32::from(*number) & 0o7777, u32::from(*number % 7));
        let mut file = File {
            directory: false,
            implied: false,
            what: format!("content {number}"),
            attributes: Attributes {
                mode: *number & 0o7777,
                uid: head.uid,
                mtime: crate::tree::Time {
                    seconds: 1_700_000_000,
                    nanoseconds: 0,
                },
                ..Attributes::default()
            },
            identity: *identity,
        };
        let (parent, name) = at.rsplit_once('/').unwrap();
        match kind {
            0..=3 => {
                made.member(&head, file.what.as_bytes());
                model.imply(&at, identity);
                model.add(&at, file);
            }
            4..=5 => {
                head.kind = b'5';
                made.member(&head, b"");
                (file.directory, file.what) = (true, "directory".into());
                model.imply(&at, identity);
                model.add(&at, file);
            }
            6 => {
                let own = model.own.get(&other).cloned();
                let is_own_way = above(&other).iter().all(|it| model.own.contains_key(*it));
                let known = own.or_else(|| below.get(&other).cloned());
                let Some(known) =
                    known.filter(|it| !it.directory && (is_own_way || !model.is_blocked(&other)))
                else {
                    continue;
                };
                made.link(b'1', &at, &other);
                model.imply(&at, identity);
                model.add(&at, known);
            }
            7 => {
                made.file(&format!("{parent}/.wh.{name}"), b"");
                model.imply(&at, identity);
                model.removed.insert(at);
            }
            _ => {
                if model.own.get(&at).is_some_and(|own| !own.directory) {
                    continue;
                }
                made.file(&format!("{at}/.wh..wh..opq"), b"");
                model.imply(&format!("{at}/x"), identity);
                model.opaque.insert(at);
            }
        }
    }
    (made, model)
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let path = || prop::collection::vec(0..4_u8, 1..4);
    let step = (0..10_u8, path(), path(), any::<u16>());
    prop::collection::vec(prop::collection::vec(step, 0..12), 1..5)
}

/// The stack, and what the model says is in it.
fn check(layers: &[Vec<Step>]) -> (Tree, Vec<Vec<u8>>) {
    let root = Attributes {
        mode: 0o755,
        ..Attributes::default()
    };
    let mut identity = 0;
    let mut files = Files::new();
    files.insert(
        String::new(),
        File {
            directory: true,
            implied: true,
            what: "directory".into(),
            attributes: root,
            identity,
        },
    );
    let mut archives = Vec::new();
    for steps in layers {
        let (made, model) = model(steps, &files, &mut identity);
        files = model.on(&files);
        archives.push(made);
    }
    let mut first: BTreeMap<usize, String> = BTreeMap::new();
    let expected: BTreeMap<String, Seen> = files
        .into_iter()
        .map(|(path, file)| {
            let name = first
                .entry(file.identity)
                .or_insert_with(|| path.clone())
                .clone();
            (path, (file.what, file.attributes, name))
        })
        .collect();
    let (tree, blobs) = stack(&archives).unwrap();
    assert_eq!(seen(&tree, &blobs), expected);
    (tree, blobs)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stacks_are_what_the_specification_says(layers in steps()) {
        check(&layers);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stacks_are_mounted_as_they_are(layers in steps()) {
        let (tree, blobs) = check(&layers);
        mount(&tree, &blobs);
    }
}
