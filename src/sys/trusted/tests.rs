//! Directories that are used, and those that are not.

use super::*;

const PURPOSE: Purpose = Purpose {
    keeps: "notes",
    variable: "XDG_RUNTIME_DIR",
};

fn at(path: &Path) -> Result<Directory, Error> {
    let path = vouch_for_parent(path).map_err(|problem| problem.of(&PURPOSE))?;
    open(&path, &PURPOSE)
}
use std::os::unix::fs::{PermissionsExt, chown, symlink};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn refused(path: &Path, parts: &[&str]) {
    let error = at(path).unwrap_err();
    let text = format!("{error}\n{}", error.help());
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn it_is_made_for_one_user_alone() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("kvmlet");
    let runtime = at(&path).unwrap();
    assert_eq!((runtime.path(), mode(&path)), (path.as_path(), 0o700));
    // Who could only look cannot any more; as systemd makes directories of services.
    set_mode(&path, 0o755);
    at(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    drop(runtime);
}

#[test]
fn what_others_can_have_written_is_not_believed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("kvmlet");
    fs::create_dir(&path).unwrap();
    for open in [0o770, 0o707, 0o1777] {
        set_mode(&path, open);
        refused(&path, &["can be written by other users", "rm -r"]);
        assert_eq!(mode(&path), open, "nothing is touched");
    }
}

#[test]
fn links_and_files_in_its_place_are_not_followed() {
    let place = tempfile::tempdir().unwrap();
    let (link, elsewhere) = (place.path().join("kvmlet"), place.path().join("elsewhere"));
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &link).unwrap();
    refused(&link, &["kvmlet", "is not a directory"]);
    symlink("/nowhere", place.path().join("dangling")).unwrap();
    refused(&place.path().join("dangling"), &["is not a directory"]);
    fs::write(place.path().join("file"), "").unwrap();
    refused(&place.path().join("file"), &["is not a directory"]);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn a_way_that_others_can_change_is_not_gone() {
    let place = tempfile::tempdir().unwrap();
    let (outer, inner) = (place.path().join("a"), place.path().join("a/b"));
    fs::create_dir_all(&inner).unwrap();
    let path = inner.join("kvmlet");
    set_mode(&outer, 0o777);
    refused(&path, &["cannot hold", "has mode 0777", "XDG_RUNTIME_DIR"]);
    // As /tmp: what is there stays what it is.
    set_mode(&outer, 0o1777);
    at(&path).unwrap();
    // A link of one's own is fine.
    let link = place.path().join("link");
    symlink(&inner, &link).unwrap();
    let runtime = at(&link.join("kvmlet")).unwrap();
    assert_eq!(runtime.path(), path);
}

#[test]
fn other_users_are_named() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: files of other users are made by root");
    }
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("kvmlet");
    fs::create_dir(&path).unwrap();
    chown(&path, Some(4_000_000), None).unwrap();
    refused(
        &path,
        &["belongs to uid 4000000", "XDG_RUNTIME_DIR", "administrator"],
    );
    let inner = path.join("kvmlet");
    refused(&inner, &["cannot hold", "belongs to uid 4000000"]);
    assert!(!inner.exists());
    // Nor is a link of theirs followed.
    let (link, mine) = (place.path().join("link"), place.path().join("mine"));
    fs::create_dir(&mine).unwrap();
    symlink(&mine, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(4_000_000), None).unwrap();
    refused(&link.join("kvmlet"), &["belongs to uid 4000000"]);
    assert_eq!(fs::read_dir(&mine).unwrap().count(), 0);
}
