use super::*;
use kvmlet_image::Compressed;
use kvmlet_image::layer::Decompressed;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

const LIMITS: Limits = Limits {
    size: 1 << 40,
    free: 1 << 40,
};

/// A file with holes at its beginning, in its middle and, if that is wanted, at its end.
fn file(ends_with_hole: bool) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4 << 20).unwrap();
    for (place, byte) in [(1 << 20, 1u8), ((1 << 20) + 8192, 2), (3 << 20, 3)] {
        file.write_all_at(&[byte; 4096], place).unwrap();
    }
    if !ends_with_hole {
        file.write_all_at(b"end", (4 << 20) - 3).unwrap();
    }
    file
}

fn content(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn packed(file: &File) -> Vec<u8> {
    let mut archive = Vec::new();
    pack(file, None, None, &mut archive).unwrap();
    archive
}

/// What is in an archive, and one that has something else.
fn plain(archive: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut reader = Decompressed::new(archive).unwrap();
    reader.read_to_end(&mut plain).unwrap();
    plain
}

fn compressed(plain: &[u8]) -> Vec<u8> {
    let mut out = Compressed::new(Vec::new());
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

fn refusal(archive: &[u8], limits: Limits) -> String {
    let file = tempfile::tempfile().unwrap();
    let error = unpack(archive, &file, limits).unwrap_err();
    assert!(file.metadata().unwrap().blocks() * 512 <= 4 << 20);
    error
}

#[test]
fn a_file_is_unpacked_as_it_was_with_its_holes() {
    for ends_with_hole in [false, true] {
        let before = file(ends_with_hole);
        let archive = packed(&before);
        assert!(archive.len() < 8192, "{}", archive.len());
        let after = tempfile::tempfile().unwrap();
        let manifest = unpack(&*archive, &after, LIMITS).unwrap();
        assert_eq!(manifest.size, 4 << 20);
        assert!(content(&after) == content(&before));
        let blocks = |file: &File| file.metadata().unwrap().blocks();
        assert!(blocks(&after) <= blocks(&before) + 8);
        assert!(blocks(&after) * 512 < 1 << 20);
    }
    let empty = tempfile::tempfile().unwrap();
    unpack(&*packed(&empty), &empty, LIMITS).unwrap();
}

#[test]
fn tar_unpacks_it_too() {
    let before = file(true);
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("plain.tar"), plain(&packed(&before))).unwrap();
    let tar = std::process::Command::new("tar")
        .args(["-xf", "plain.tar"])
        .current_dir(place.path())
        .output();
    let output = match tar {
        // Not all hosts of these tests have it.
        Err(_) => return println!("SKIPPED: there is no tar"),
        Ok(output) => output,
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("BusyBox") || said.contains("unrecognized") {
        return println!("SKIPPED: this tar knows no sparse files: {said}");
    }
    assert!(output.status.success(), "{said}");
    let after = File::open(place.path().join("snapshot")).unwrap();
    assert!(content(&after) == content(&before));
    assert!(after.metadata().unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn whatever_is_cut_off_or_changed_is_noticed() {
    let archive = packed(&file(false));
    let tar = plain(&archive);
    for length in (0..archive.len()).step_by(37).chain([archive.len() - 1]) {
        refusal(&archive[..length], LIMITS);
    }
    for length in (0..tar.len()).step_by(301).chain([tar.len() - 512]) {
        refusal(&compressed(&tar[..length]), LIMITS);
    }
    // Each byte that says something: of names, sizes, the manifest, places, content and the digest.
    for (place, byte) in tar
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte != 0)
        .step_by(23)
    {
        let mut changed = tar.clone();
        changed[place] = byte ^ 1;
        let file = tempfile::tempfile().unwrap();
        assert!(
            unpack(&*compressed(&changed), &file, LIMITS).is_err(),
            "{place}"
        );
    }
    let more = [&tar[..], b"more"].concat();
    assert!(refusal(&compressed(&more), LIMITS).contains("behind its end"));
    assert!(refusal(b"text", LIMITS).contains("cut short"));
    assert!(refusal(&[7; 4096], LIMITS).contains("no tar archive"));
}

/// An archive whose manifest and map say this, with heads and a digest that are right.
fn lying(size: u64, stored: u64, parts: &[(u64, u64)], content: &[u8]) -> Vec<u8> {
    let manifest = Manifest {
        format: FORMAT,
        kvmlet: String::new(),
        size,
        stored,
        saved: None,
        instance: None,
    };
    let parts = parts.iter().map(|(start, length)| Part {
        start: *start,
        length: *length,
    });
    write::lie(&manifest, &parts.collect::<Vec<_>>(), content)
}

#[test]
fn a_hostile_archive_takes_no_more_than_it_says_and_may() {
    let small = Limits {
        size: 1 << 20,
        free: 8192,
    };
    let file = tempfile::tempfile().unwrap();
    let honest = lying(65536, 6, &[(100, 3), (200, 3)], b"abcdef");
    assert_eq!(unpack(&*honest, &file, small).unwrap().stored, 6);
    for (size, stored, parts, expected) in [
        (2 << 20, 3, &[(0, 3)][..], "no VM has as much memory"),
        (u64::MAX, 3, &[(0, 3)], "no VM has as much memory"),
        (65536, 9000, &[(0, 9000)], "no more is free"),
        (65536, 3, &[(0, 9000)], "do not agree"),
        (65536, 3, &[(0, u64::MAX)], "not where they can be"),
        (65536, 3, &[(u64::MAX - 1, 3)], "not where they can be"),
        (65536, 3, &[(65535, 3)], "not where they can be"),
        (65536, 6, &[(100, 3), (101, 3)], "not where they can be"),
        (65536, 6, &[(100, 3), (0, 3)], "not where they can be"),
    ] {
        let error = refusal(&lying(size, stored, parts, b"abc"), small);
        assert!(
            error.contains(expected),
            "{size} {stored} {parts:?}: {error}"
        );
    }
    // All that it says is a hundred times what is read before it is found out.
    let bomb = compressed(&vec![0; 8 << 20]);
    assert!(bomb.len() < 8 << 10, "{}", bomb.len());
    refusal(&bomb, small);
}
