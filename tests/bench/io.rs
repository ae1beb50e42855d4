//! Disk and network of a guest against the host's.

use crate::cache::Cache;
use crate::{Test, harness};
use std::fs;

pub const TESTS: &[Test] = &[
    ("io_compares_guest_and_host", root_with_kvm, compares),
    ("io_tells_what_failed", root_with_kvm, fails),
];

fn root_with_kvm() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("taps need root".into());
    }
    harness::kvm()
}

fn compares() {
    let cache = Cache::new();
    for guest in ["virtio_blk_bench", "virtio_net_bench"] {
        fs::copy(harness::program(guest), cache.guest(guest)).unwrap();
    }
    let result = cache.json(&["io", "--rounds", "1"]);
    assert_eq!(
        result["failures"].as_array().unwrap().len(),
        0,
        "{result:#}"
    );
    let work = result["work"].as_array().unwrap();
    assert_eq!(work.len(), 10);
    for one in work {
        let name = one["name"].as_str().unwrap();
        assert_eq!(one["on_host"].as_array().unwrap().len(), 1, "{one:#}");
        assert_eq!(one["in_guest"].as_array().unwrap().len(), 1, "{one:#}");
        // The schema says that rates and ratios are above zero.
        assert!(one["to_host"].is_object(), "{one:#}");
        assert_eq!(
            one["per_notification"].is_null(),
            name.starts_with("receive"),
            "{one:#}"
        );
    }
}

/// Without its guests nothing can be measured, which is said, and no tap or file stays.
fn fails() {
    let result = Cache::new().json(&["io", "--rounds", "1"]);
    assert!(result["work"].as_array().unwrap().is_empty());
    let failures = result["failures"].as_array().unwrap();
    for (failure, guest) in failures
        .iter()
        .zip(["virtio_blk_bench", "virtio_net_bench"])
    {
        assert!(failure.as_str().unwrap().contains(guest), "{failure}");
    }
    assert_eq!(failures.len(), 2);
}
