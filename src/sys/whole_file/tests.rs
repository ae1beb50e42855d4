//! What is replaced, what is written to, and what is refused.

use super::*;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;

fn fifo(path: &Path) {
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    Directory::open(directory).unwrap().names().unwrap()
}

fn refused(path: &Path, part: &str) {
    let error = WholeFile::open(path).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    let text = format!("{error} {cause:?}");
    assert!(text.contains(part), "no {part:?} in {text}");
}

#[test]
fn a_file_is_replaced_whole_and_nothing_beside_it() {
    let place = tempfile::tempdir().unwrap();
    let (path, beside) = (
        place.path().join("data.json"),
        place.path().join("data.new"),
    );
    fs::write(&beside, "mine").unwrap();
    let file = WholeFile::open(&path).unwrap();
    assert!(!path.exists(), "it is not made before there is something");
    file.write(b"first").unwrap();
    let reader = File::open(&path).unwrap();
    set_mode(&path, 0o604);
    WholeFile::open(&path).unwrap().write(b"2nd").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"2nd");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o604);
    let mut seen = String::new();
    (&reader).read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "first", "who reads has one whole text");
    assert_eq!(fs::read(&beside).unwrap(), b"mine");
    assert_eq!(names(place.path()).len(), 2);
}

#[test]
fn links_are_followed_to_the_file() {
    let place = tempfile::tempdir().unwrap();
    let (target, link) = (place.path().join("target"), place.path().join("link"));
    fs::write(&target, "old").unwrap();
    symlink("target", &link).unwrap();
    WholeFile::open(&link).unwrap().write(b"new").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&target).unwrap(), b"new");
    // To a file that is not there yet, as with a shell's `>`.
    symlink("later", place.path().join("early")).unwrap();
    let early = WholeFile::open(&place.path().join("early")).unwrap();
    early.write(b"new").unwrap();
    assert_eq!(fs::read(place.path().join("later")).unwrap(), b"new");
    symlink("/nowhere/at/all", place.path().join("dangling")).unwrap();
    refused(&place.path().join("dangling"), "No such file");
    symlink("loop", place.path().join("loop")).unwrap();
    refused(&place.path().join("loop"), "(os error 40)");
}

#[test]
fn devices_and_fifos_stay_what_they_are() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("fifo");
    fifo(&path);
    refused(&path, "nobody reads the FIFO");
    let reader = std::thread::spawn({
        let path = path.clone();
        move || fs::read(path).unwrap()
    });
    let file = loop {
        match WholeFile::open(&path) {
            Err(Error::NoReader { .. }) => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    // More than a FIFO holds.
    let long = vec![b'x'; 200_000];
    file.write(&long).unwrap();
    drop(file);
    assert_eq!(reader.join().unwrap(), long);
    assert_eq!(names(place.path()), ["fifo"]);
    let null = WholeFile::open(Path::new("/dev/null")).unwrap();
    null.write(b"nothing").unwrap();
    let kind = fs::metadata("/dev/null").unwrap().mode();
    assert_eq!(FileType::from_raw_mode(kind), FileType::CharacterDevice);
}

#[test]
fn a_reader_who_stops_is_not_waited_for_for_ever() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let error = stream(&File::from(write), &vec![0; 1 << 20]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(read);
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let place = tempfile::tempdir().unwrap();
    refused(place.path(), "a directory");
    refused(Path::new("/"), "a directory");
    refused(&place.path().join(".."), "a directory");
    let socket = place.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    refused(&socket, "a socket");
    refused(&place.path().join("nowhere/file"), "No such file");
    refused(&place.path().join("socket/file"), "Not a directory");
    assert_eq!(names(place.path()), ["socket"]);
    refused(Path::new("/proc/file"), "cannot write to `/proc/file`");
}

#[test]
fn bait_in_a_shared_directory_is_not_taken() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: files of other users are made by root");
    }
    let other = Some(4_000_000);
    let place = tempfile::tempdir().unwrap();
    let canary = place.path().join("canary");
    fs::write(&canary, "alive").unwrap();
    let shared = place.path().join("tmp");
    fs::create_dir(&shared).unwrap();
    set_mode(&shared, 0o1777);
    let at = |name: &str| shared.join(name);
    symlink(&canary, at("link")).unwrap();
    fs::write(at("file"), "bait").unwrap();
    fifo(&at("fifo"));
    for name in ["link", "file", "fifo"] {
        lchown(at(name), other, None).unwrap();
        refused(&at(name), "was put there by uid 4000000");
    }
    assert_eq!(fs::read(&canary).unwrap(), b"alive");
    // Where nobody else can, it is there because somebody of this house has put it there, and stays theirs.
    set_mode(&shared, 0o755);
    WholeFile::open(&at("file")).unwrap().write(b"new").unwrap();
    assert_eq!(fs::metadata(at("file")).unwrap().uid(), 4_000_000);
    chown(at("file"), Some(0), None).unwrap();
}
