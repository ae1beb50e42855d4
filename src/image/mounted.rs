//! Images as the host's kernel and `fsck.erofs` see them, for tests.

use crate::tree::{BLOCK, Content, Kind, Node, NodeId, Tree};
use rustix::fs::{lgetxattr, llistxattr};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

/// Whether this machine mounts EROFS for this user; says so where it does not.
fn can_mount() -> bool {
    // It may be a module, and there may be none.
    let _ = Command::new("modprobe").arg("-q").arg("erofs").status();
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    let can = rustix::process::geteuid().is_root() && known.contains("erofs");
    if !can {
        println!("SKIPPED: only root mounts, and only a kernel with EROFS");
    }
    can
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(output.status.success(), "{command:?}: {told}");
}

/// `fsck.erofs`, and for root a mount in a namespace of its own, see what is in the tree and nothing else.
pub fn check(image: &[u8], tree: &Tree, blobs: &[Vec<u8>]) {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("image");
    fs::write(&file, image).unwrap();
    match Command::new("fsck.erofs").arg("-V").output() {
        Ok(_) => run(Command::new("fsck.erofs").arg("--extract").arg(&file)),
        Err(_) => println!("SKIPPED: there is no fsck.erofs"),
    }
    if !can_mount() {
        return;
    }
    let at = place.path().join("mounted");
    fs::create_dir(&at).unwrap();
    let compare = || {
        // SAFETY: this thread was made for it, and nothing else is shared that it would miss.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
        run(Command::new("mount").args(["--make-rprivate", "/"]));
        let mut mount = Command::new("mount");
        run(mount
            .args(["-t", "erofs", "-o", "loop,ro"])
            .arg(&file)
            .arg(&at));
        Comparison::new(tree, blobs).directory(Tree::ROOT, Tree::ROOT, &at);
        // The namespace ends with the thread, and the mount with it.
    };
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(compare).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A file's content, as far as it is not a hole at its end.
pub fn bytes(content: &Content, blobs: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; content.size() as usize];
    for run in content.runs() {
        let (from, at) = (
            run.block as usize * BLOCK as usize,
            run.at as usize * BLOCK as usize,
        );
        let length = (run.blocks as usize * BLOCK as usize).min(bytes.len() - at);
        let blob = &blobs[usize::from(run.blob)];
        bytes[at..at + length].copy_from_slice(&blob[from..from + length]);
    }
    bytes
}

struct Comparison<'a> {
    tree: &'a Tree,
    blobs: &'a [Vec<u8>],
    links: BTreeMap<NodeId, u64>,
    inodes: BTreeMap<NodeId, u64>,
}

impl<'a> Comparison<'a> {
    fn new(tree: &'a Tree, blobs: &'a [Vec<u8>]) -> Self {
        let mut links = BTreeMap::new();
        let mut waiting = vec![Tree::ROOT];
        while let Some(id) = waiting.pop() {
            for child in tree.children(id).unwrap().values() {
                if tree.children(*child).is_some() {
                    waiting.push(*child);
                } else {
                    *links.entry(*child).or_insert(0) += 1;
                }
            }
        }
        let inodes = BTreeMap::new();
        Self {
            tree,
            blobs,
            links,
            inodes,
        }
    }

    fn directory(&mut self, id: NodeId, parent: NodeId, at: &Path) {
        self.node(id, at);
        let children = self.tree.children(id).unwrap();
        let found: BTreeSet<Vec<u8>> = fs::read_dir(at)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_vec())
            .collect();
        let given = children.keys().map(|name| name.as_bytes().to_vec());
        assert_eq!(found, given.collect(), "{}", at.display());
        let up = fs::symlink_metadata(at.join("..")).unwrap();
        if id != Tree::ROOT {
            assert_eq!(up.ino(), self.inodes[&parent], "{}/..", at.display());
        }
        for (name, child) in children {
            let at = at.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
            match self.tree.children(*child) {
                Some(_) => self.directory(*child, id, &at),
                None => self.node(*child, &at),
            }
        }
    }

    fn node(&mut self, id: NodeId, at: &Path) {
        let Node { attributes, kind } = self.tree.node(id);
        let stat = fs::symlink_metadata(at).unwrap();
        let path = at.display();
        let mtime = (
            attributes.mtime.seconds,
            i64::from(attributes.mtime.nanoseconds),
        );
        assert_eq!((stat.mtime(), stat.mtime_nsec()), mtime, "{path}");
        let owner = (attributes.uid, attributes.gid);
        assert_eq!((stat.uid(), stat.gid()), owner, "{path}");
        let mode = u32::from(super::erofs::mode_of(kind) | attributes.mode & 0o7777);
        assert_eq!(stat.mode(), mode, "{path}");
        let known = *self.inodes.entry(id).or_insert(stat.ino());
        assert_eq!(stat.ino(), known, "{path}");
        self.xattrs(id, at);
        let links = match kind {
            Kind::Directory(children) => {
                let inside = children.values();
                2 + inside
                    .filter(|it| self.tree.children(**it).is_some())
                    .count() as u64
            }
            _ => self.links[&id],
        };
        assert_eq!(stat.nlink(), links, "{path}");
        match kind {
            Kind::File(content) => self.content(content, at),
            Kind::Symlink(target) => {
                let found = fs::read_link(at).unwrap();
                assert_eq!(found.as_os_str().as_bytes(), &**target, "{path}");
            }
            Kind::Character(device) | Kind::Block(device) => {
                let found = rustix::fs::makedev(device.major(), device.minor());
                assert_eq!(stat.rdev(), found, "{path}");
            }
            Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
        }
    }

    fn xattrs(&self, id: NodeId, at: &Path) {
        let mut buffer = vec![0; 1 << 17];
        let length = llistxattr(at, &mut buffer[..]).unwrap();
        let names = buffer[..length].split(|byte| *byte == 0);
        let found: BTreeMap<Vec<u8>, Vec<u8>> = names
            .filter(|name| !name.is_empty())
            .map(|name| {
                let mut value = vec![0; 1 << 16];
                let length = lgetxattr(at, name, &mut value[..]).unwrap();
                (name.to_vec(), value[..length].to_vec())
            })
            .collect();
        let given = self.tree.node(id).attributes.xattrs.iter();
        let given = given.map(|(name, value)| (name.to_bytes(), value.to_vec()));
        assert_eq!(found, given.collect(), "{}", at.display());
    }

    fn content(&self, content: &Content, at: &Path) {
        const READ: u64 = 64 << 20;
        let path = at.display();
        let file = fs::File::open(at).unwrap();
        assert_eq!(file.metadata().unwrap().len(), content.size(), "{path}");
        if content.size() <= READ {
            let found = fs::read(at).unwrap();
            assert!(
                found == bytes(content, self.blobs),
                "{path} has other content"
            );
            return;
        }
        // A sparse one: its runs and what is beside them.
        let mut expected = BTreeMap::new();
        for run in content.runs() {
            let blob = &self.blobs[usize::from(run.blob)];
            for block in [0, run.blocks - 1] {
                let from = (run.block + block) as usize * BLOCK as usize;
                let data = blob[from..from + BLOCK as usize].to_vec();
                expected.insert(u64::from(run.at + block) * BLOCK, data);
            }
            expected
                .entry(run.end() * BLOCK)
                .or_insert(vec![0; BLOCK as usize]);
        }
        for (offset, data) in expected {
            if offset < content.size() {
                let length = BLOCK.min(content.size() - offset) as usize;
                let mut found = vec![0; length];
                file.read_exact_at(&mut found, offset).unwrap();
                assert!(
                    found == data[..length],
                    "{path} has other content at {offset}"
                );
            }
        }
    }
}
