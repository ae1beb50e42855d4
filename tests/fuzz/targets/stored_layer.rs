//! What the store has of a layer, which a process without rights has written of what strangers have made: read, and made
//! part of an image.

#![no_main]

use kvmlet_image::erofs::Image;
use kvmlet_image::layer::Changes;
use kvmlet_image::merge::merge;
use libfuzzer_sys::fuzz_target;
use std::io;

fuzz_target!(|data: &[u8]| {
    let Some(changes) = Changes::from_bytes(data) else {
        return;
    };
    // What counts of it is the same when it is written again.
    let kept = changes.to_bytes();
    let again = Changes::from_bytes(&kept).unwrap();
    assert_eq!(again.to_bytes(), kept);
    if let Ok(tree) = merge([&changes, &again])
        && let Ok(image) = Image::new(&tree, &[1000, 1000], b"")
    {
        image.write(&mut io::sink()).unwrap();
    }
});
