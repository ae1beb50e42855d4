//! A tree as a reader sees it: a line for each file, with all that a container of the image could notice.

use kvmlet_image::Digest;
use rustix::fs::{lgetxattr, llistxattr};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is at a path, and when it was changed, in seconds and nanoseconds.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub what: String,
    pub mtime: (i64, i64),
}

/// All paths below a directory, which is "" itself, escaped.
pub fn tree(root: &Path) -> BTreeMap<String, Seen> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![(root.to_path_buf(), String::new())];
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    while let Some((path, name)) = waiting.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let mut what = format!("{:o} {}:{}", found.mode(), found.uid(), found.gid());
        if found.is_dir() {
            let names = fs::read_dir(&path).unwrap();
            let mut names: Vec<_> = names
                .map(|entry| entry.unwrap().file_name().into_vec())
                .collect();
            // The first in order is the next.
            names.sort_by(|one, other| other.cmp(one));
            for child in names {
                let below = format!("{name}/{}", child.escape_ascii());
                waiting.push((path.join(std::ffi::OsStr::from_bytes(&child)), below));
            }
        } else {
            let group = first.entry(found.ino()).or_insert_with(|| name.clone());
            what += &format!(" {} names, first {group}", found.nlink());
        }
        if found.is_file() {
            let content = fs::read(&path).unwrap();
            let sum = Digest::of(&content);
            what += &format!(" {} bytes {sum}", content.len());
        } else if found.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            what += &format!(" -> {}", target.as_os_str().as_bytes().escape_ascii());
        } else if !found.is_dir() {
            what += &format!(" device {:x}", found.rdev());
        }
        what += &xattrs(&path);
        let mtime = (found.mtime(), found.mtime_nsec());
        all.insert(name, Seen { what, mtime });
    }
    all
}

fn xattrs(path: &Path) -> String {
    let mut buffer = vec![0; 64 << 10];
    let length = llistxattr(path, &mut buffer[..]).unwrap();
    let names: Vec<u8> = buffer[..length].to_vec();
    let mut all: Vec<String> = Vec::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let length = lgetxattr(path, name, &mut buffer[..]).unwrap();
        all.push(format!(
            " {}={}",
            name.escape_ascii(),
            buffer[..length].escape_ascii()
        ));
    }
    all.sort();
    all.concat()
}
