//! The block device under a hostile driver, on a real file.
#![no_main]

mod driver;

use kvmlet::config::Disk;
use kvmlet::devices::virtio::block::BlockDevice;
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

static IMAGE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("kvmlet-fuzz-{}.img", std::process::id()));
    std::fs::write(&path, vec![0; 1 << 20]).expect("an image");
    path
});

fuzz_target!(|bytes: &[u8]| {
    // The first byte chooses between the two back ends.
    let io = if bytes.first().is_some_and(|byte| byte & 1 == 0) { "sync" } else { "auto" };
    let disk: Disk = format!("{},io={io}", IMAGE.display()).parse().expect("a disk");
    let (device, _handle) = BlockDevice::open(&disk, 0).expect("an image that opens");
    driver::drive(Box::new(device), bytes);
});
