//! Bits that change, disks that are full, processes that are killed.

use super::*;
use crate::tarball::record;
use proptest::prelude::*;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Changes a bit of a file of the store.
fn damage(path: &std::path::Path, at: u64, bit: u8) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_bit_changes_unseen(layer: bool, part in 0.0..1.0_f64, bit in 0..8_u8, cut: bool) {
        let place = place();
        let image = place.image(&["a", "b"], "", &["x"]);
        let id = image.image.id;
        drop(image);
        let path = match layer {
            true => place.place.path().join("images/layers").join(&place.files("layers")[0]),
            false => place.place.path().join("images/images").join(id.hex()),
        };
        let length = fs::metadata(&path).unwrap().len();
        let at = (part * length as f64) as u64;
        match cut {
            true => fs::File::options().write(true).open(&path).unwrap().set_len(at).unwrap(),
            false => damage(&path, at, bit),
        }
        let checked = place.store.check().unwrap();
        prop_assert!(!checked.broken.is_empty());
        prop_assert!(!path.exists());
        prop_assert!(checked.broken.iter().all(|it| it.names == [name("x")]));
        let mended = match place.store.find("x") {
            Ok(found) => found.is_none(),
            Err(error) => matches!(error, Error::Incomplete { .. }),
        };
        prop_assert!(mended);
        place.image(&["a", "b"], "", &["x"]);
        prop_assert!(place.store.find("x").unwrap().is_some());
        let checked = place.store.check().unwrap();
        prop_assert_eq!((checked.layers, checked.images), (2, 1), "{:?}", checked.broken);
    }
}

#[test]
fn names_that_are_broken_are_told_and_mended() {
    let place = place();
    place.image(&["a"], "", &["first", "second"]);
    let path = place.place.path().join("images/names");
    damage(&path, 90, 1);
    let error = place.store.find("first").unwrap_err();
    assert!(matches!(error, Error::Names(_)), "{error}");
    place.store.check().unwrap();
    assert!(place.store.find("second").unwrap().is_some());
}

/// Runs `body` where a directory is a file system of its own that is nearly full; for root.
fn on_a_small_disk(size: &str, body: impl FnOnce(&std::path::Path) + Send) {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root mounts");
    }
    let place = tempfile::tempdir().unwrap();
    let run = || {
        // SAFETY: this thread was made for it, and nothing else is shared that it would miss.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
        let mount = |arguments: &[&str]| {
            let status = Command::new("mount").args(arguments).status();
            assert!(status.unwrap().success());
        };
        mount(&["--make-rprivate", "/"]);
        let at = place.path().to_str().unwrap();
        mount(&[
            "-t",
            "tmpfs",
            "-o",
            &format!("size={size},mode=700"),
            "none",
            at,
        ]);
        body(place.path());
    };
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A file of many pieces, of which each has one byte, at its end.
#[test]
fn zeros_that_nobody_has_sent_take_no_place() {
    let place = place();
    let piece = 256 << 10;
    let map: Vec<_> = (1..=48)
        .map(|number| format!("{},1", number * piece - 1))
        .collect();
    let mut made = Tarball::default();
    made.extended(
        &[
            record("GNU.sparse.size", (1_u64 << 36).to_string().as_bytes()),
            record("GNU.sparse.map", map.join(",").as_bytes()),
        ]
        .concat(),
    );
    let made = made.file("sparse", &[7; 48]).finish();
    let layer = place.layer(&made);
    assert_eq!(layer.data_length, 48 * piece);
    let path = place.place.path().join("images/layers");
    let meta = fs::metadata(path.join(layer.diff_id.hex())).unwrap();
    assert!(meta.len() > 48 * piece);
    assert!(meta.blocks() * 512 < 1 << 20, "{}", meta.blocks());
    let mut archive = Vec::new();
    layer.archive().unwrap().read_to_end(&mut archive).unwrap();
    assert!(archive == made);
    assert_eq!(place.store.check().unwrap().broken.len(), 0);
}

#[test]
fn a_full_disk_leaves_nothing() {
    on_a_small_disk("400k", |at| {
        let store = Store::open(&at.join("images")).unwrap();
        let free = || rustix::fs::statvfs(at).unwrap().f_bfree;
        let before = free();
        let data: Vec<u8> = (0..500_000_u32).map(|it| (it * 7 % 251) as u8).collect();
        let mut made = Tarball::default();
        made.file("small", b"x").file("big", &data);
        let error = store.add_layer(&made.finish()[..], &LIMITS).unwrap_err();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        assert!(
            cause.to_string().contains("No space left"),
            "{error}: {cause}"
        );
        // The locks' files are empty.
        assert!(before - free() <= 2, "{before} {}", free());
        assert_eq!(fs::read_dir(at.join("images/layers")).unwrap().count(), 0);
        store.add_layer(&archive("fits")[..], &LIMITS).unwrap();
    });
}

const CHILD: &str = "KVMLET_TEST_STORE";

/// What a killed process was about: it adds the same two images again and again, and removes them.
#[test]
fn child() {
    let Some(root) = std::env::var_os(CHILD) else {
        return;
    };
    let place = Place {
        place: tempfile::tempdir().unwrap(),
        store: Store::open(std::path::Path::new(&root)).unwrap(),
    };
    println!("begun");
    loop {
        place.image(&["base", "a"], "", &["a"]);
        place.image(&["base", "b"], "", &["b", "c"]);
        let _ = place.store.remove("a", true, &|_| false);
        let _ = place.store.prune(true, &|_| false);
    }
}

#[test]
fn whoever_is_killed_leaves_what_the_next_one_clears() {
    let place = place();
    let root = place.place.path().join("images");
    let start = || {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::accidents::child", "--nocapture"])
            .env(CHILD, &root)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("begun") {
            line.clear();
            std::io::BufRead::read_line(&mut told, &mut line).unwrap();
        }
        child
    };
    for round in 0..25_u64 {
        // Two at a time, one of which goes on for a while.
        let (mut first, mut second) = (start(), start());
        std::thread::sleep(Duration::from_micros(round * 1711 % 23_000));
        for child in [&mut first, &mut second] {
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(9));
        }
        let checked = place.store.check().unwrap();
        assert!(checked.broken.is_empty(), "{:?}", checked.broken);
        for directory in ["layers", "images"] {
            let left = place.files(directory);
            assert!(
                left.iter().all(|name| Digest::from_hex(name).is_some()),
                "{left:?}"
            );
        }
        let id = place.image(&["base", "a"], "", &["a"]).image.id;
        assert_eq!(place.store.find("a").unwrap().unwrap().image.id, id);
    }
    place.store.prune(true, &|_| false).unwrap();
    for directory in ["layers", "images"] {
        assert!(place.files(directory).is_empty());
    }
    assert!(place.store.images().unwrap().is_empty());
}
