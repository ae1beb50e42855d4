//! A layer of an image, as a hostile registry would send it: read, kept and read back, put on top of itself, and written as an image.

#![no_main]

use kvmlet_image::blob::Blob;
use kvmlet_image::erofs::Image;
use kvmlet_image::layer::{Changes, Limits, Rest, read};
use kvmlet_image::merge::merge;
use kvmlet_image::tree::BLOCK;
use libfuzzer_sys::fuzz_target;
use std::io;

const LIMITS: Limits = Limits {
    files: 1000,
    depth: 64,
    text: 64 << 10,
    length: 1 << 20,
};
/// What all content together may have, in blocks.
const BLOCKS: u32 = 512;

fuzz_target!(|data: &[u8]| {
    let mut blob = Blob::new(io::sink(), 0, BLOCKS);
    let mut rest = Rest::new(Vec::new(), LIMITS.length);
    let layer = read(data, &mut blob, &mut rest, &LIMITS);
    assert!(blob.blocks() <= BLOCKS);
    let Ok(layer) = layer else {
        return;
    };
    assert!(layer.length <= LIMITS.length);
    // As the store keeps it.
    let kept = layer.changes.to_bytes();
    assert_eq!(Changes::from_bytes(&kept).unwrap().to_bytes(), kept);
    let tree = layer.changes.tree();
    assert!(tree.len() <= LIMITS.files);
    // On top of itself its hard links may lead into the layer below.
    let Ok(tree) = merge([&layer.changes, &layer.changes]) else {
        return;
    };
    let blobs = [blob.blocks(); 2];
    let image = Image::new(&tree, &blobs, &layer.digest).unwrap();
    let mut written = Counter(0);
    image.write(&mut written).unwrap();
    assert_eq!(written.0, u64::from(image.blocks()) * BLOCK);
});

/// How much is written, not what.
struct Counter(u64);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
