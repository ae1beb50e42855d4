//! Stacks in a store of kvmlet's.

use crate::made::Made;
use kvmlet_image::layer::LIMITS;
use kvmlet_image::store::Store;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a command prints that is done.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A file with what a guest's disk of the stack's image has: its ranges, one behind the other. It is in a directory that is
/// made, together with the store.
pub fn disk(place: &Path, stack: &[Made]) -> PathBuf {
    fs::create_dir(place).unwrap();
    let store = Store::open(&place.join("images")).unwrap();
    let layers: Vec<_> = stack
        .iter()
        .map(|layer| store.add_layer(&layer.shuffled[..], &LIMITS).unwrap())
        .collect();
    let ids: Vec<_> = layers
        .iter()
        .map(|layer| format!("\"{}\"", layer.diff_id))
        .collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}},"config":{{}}}}"#,
        ids.join(",")
    );
    let stored = store.add_image(config.as_bytes(), &layers, &[]).unwrap();
    let disk = place.join("disk");
    let mut file = File::create(&disk).unwrap();
    for extent in &stored.image.extents {
        let mut from = File::open(&extent.path).unwrap();
        from.seek(SeekFrom::Start(extent.offset)).unwrap();
        std::io::copy(&mut from.take(extent.length), &mut file).unwrap();
    }
    disk
}
