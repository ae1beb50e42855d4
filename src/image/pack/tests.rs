//! Directories with all kinds of files, as archives and as images that mount.

use super::*;
use crate::layer::LIMITS;
use crate::layer::tests::read_and_keep;
use crate::merge::merge;
use crate::mounted;
use crate::tree::{Attributes, Kind};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

fn made() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir_all(at("sub/empty")).unwrap();
    fs::write(at("sub/file"), [7; 10_000]).unwrap();
    fs::hard_link(at("sub/file"), at("linked")).unwrap();
    symlink("sub/../nowhere", at("link")).unwrap();
    symlink("t".repeat(300), at("long target")).unwrap();
    fs::write(at(&"n".repeat(250)), "").unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.write_all_at(b"begin", 1 << 20).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let mode = fs::Permissions::from_mode(0o4711);
    fs::set_permissions(at("sub/file"), mode).unwrap();
    let fifo = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), fifo).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let _ = rustix::fs::lsetxattr(at("sub/file"), "user.note", b"a\0b\n", flags);
    if rustix::process::geteuid().is_root() {
        let device = rustix::fs::makedev(1, 3);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, at("null"), kind, fifo, device).unwrap();
        std::os::unix::fs::chown(at("sub/empty"), Some(5), Some(6)).unwrap();
        // cap_net_raw, as ping has it.
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let name = "security.capability";
        rustix::fs::lsetxattr(at("sub/file"), name, &capability, flags).unwrap();
    }
    place
}

fn imaged(directory: &Path, owners: Owners) -> Vec<u8> {
    let mut out = tempfile::tempfile().unwrap();
    let mut told = (0, 0);
    image(directory, owners, &out, |written, all| {
        assert!(
            told.0 < written && written <= all,
            "{told:?} {written} of {all}"
        );
        told = (written, all);
    })
    .unwrap();
    let mut bytes = Vec::new();
    out.rewind().unwrap();
    out.read_to_end(&mut bytes).unwrap();
    bytes
}

fn packed(directory: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    archive(directory, &mut out).unwrap();
    out
}

#[test]
fn a_directory_is_packed_and_mounts() {
    let place = made();
    let bytes = packed(place.path());
    assert!(bytes.len() < 200_000, "holes are not data");
    let (layer, data) = read_and_keep(&bytes, u32::MAX, &LIMITS).unwrap();
    let tree = merge([&layer.changes]).unwrap();
    let at = |path: &str| tree.at(path.split('/').map(str::as_bytes));
    let file = tree.node(at("sub/file").unwrap());
    assert_eq!(at("linked"), at("sub/file"));
    assert_eq!(at("socket"), None);
    let kept = Attributes {
        mode: 0o4711,
        ..Attributes::default()
    };
    let without = Attributes {
        xattrs: Default::default(),
        ..file.attributes.clone()
    };
    assert_eq!(without, kept, "root's, of 1970");
    if rustix::process::geteuid().is_root() {
        let names: Vec<_> = file
            .attributes
            .xattrs
            .iter()
            .map(|it| it.0.to_bytes())
            .collect();
        assert!(
            names.contains(&b"security.capability".to_vec()),
            "{names:?}"
        );
        assert_eq!(tree.node(at("sub/empty").unwrap()).attributes.uid, 0);
    }
    let Kind::File(sparse) = &tree.node(at("sparse").unwrap()).kind else {
        panic!("a file");
    };
    assert_eq!((sparse.size(), sparse.runs().len()), (1 << 40, 1));
    mounted::check(&imaged(place.path(), Owners::Root), &tree, &[data]);
}

#[test]
fn owners_are_kept_where_that_is_asked_for() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root gives files away");
    }
    let place = made();
    let (layer, data) = read_and_keep(&packed(place.path()), u32::MAX, &LIMITS).unwrap();
    let mut tree = merge([&layer.changes]).unwrap();
    let given = tree.at([&b"sub"[..], b"empty"]).unwrap();
    let attributes = &mut tree.node_mut(given).attributes;
    (attributes.uid, attributes.gid) = (5, 6);
    mounted::check(&imaged(place.path(), Owners::Kept), &tree, &[data]);
}

#[test]
fn the_same_files_are_the_same_bytes() {
    let (first, second) = (made(), made());
    assert!(packed(first.path()) == packed(second.path()));
    let root = Owners::Root;
    assert!(imaged(first.path(), root) == imaged(second.path(), root));
    fs::write(first.path().join("more"), "").unwrap();
    assert!(packed(first.path()) != packed(second.path()));
}

#[test]
fn what_cannot_be_read_is_no_image() {
    let place = tempfile::tempdir().unwrap();
    let missing = place.path().join("none");
    let text = format!("cannot read `{}`", missing.display());
    let out = tempfile::tempfile().unwrap();
    let refused = |path: &Path, told: fn(u64, u64)| {
        let error = image(path, Owners::Root, &out, told);
        error.unwrap_err().to_string()
    };
    assert_eq!(refused(&missing, |_, _| {}), text);
    let archived = archive(&missing, &mut Vec::new());
    assert_eq!(archived.unwrap_err().to_string(), text);
}

#[test]
fn what_changes_meanwhile_is_no_image() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::write(at("first"), [1; 5000]).unwrap();
    fs::write(at("second"), [2; 5000]).unwrap();
    let out = tempfile::tempfile().unwrap();
    let changed = image(place.path(), Owners::Root, &out, |_, _| {
        fs::write(at("second"), "shorter").unwrap();
    });
    let text = format!("`{}` has changed while it was read", at("second").display());
    assert_eq!(changed.unwrap_err().to_string(), text);
}
