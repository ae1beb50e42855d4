//! Disk and network of a guest against the host's.

use crate::cache::Cache;
use crate::{Test, harness};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

pub const TESTS: &[Test] = &[
    ("io_compares_guest_and_host", root_with_kvm, compares),
    ("io_tells_what_failed", root_with_kvm, fails),
];

/// Stands in for a VMM with devices on a PCI bus, and does not do the last kind of work.
const FAILS_AT_LAST: &str = r#"#!/bin/sh
if [ "$1" = --version ]; then echo cloud-hypervisor v0; exit; fi
while [ $# -gt 0 ]; do
    case $1 in
        --kernel) kernel=$2 ;;
        --cmdline) cmdline=$2 ;;
        --disk) path=${2#path=} device=--disk=${path%%,*} ;;
        --net) device=--net=$2 ;;
    esac
    shift
done
case $cmdline in *mode=receive*size=1514*) echo 'no more of it' >&2; exit 3 ;; esac
exec KVMLET boot --pci --kernel "$kernel" --cmdline "$cmdline" "$device"
"#;

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
    // kvmlet has the API of Firecracker under that name.
    let first = tempfile::tempdir().unwrap();
    symlink(
        env!("CARGO_BIN_EXE_kvmlet"),
        first.path().join("firecracker"),
    )
    .unwrap();
    let script = FAILS_AT_LAST.replace("KVMLET", env!("CARGO_BIN_EXE_kvmlet"));
    let path = first.path().join("cloud-hypervisor");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let report = first.path().join("report.html");
    let page = report.to_str().unwrap();
    let result = cache.json_with(first.path(), &["io", "--rounds", "1", "--report", page]);
    let failures = result["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1, "{result:#}");
    let failure = failures[0].as_str().unwrap();
    assert!(failure.starts_with("cloud-hypervisor: ") && failure.contains("no more of it"));
    let page = fs::read_to_string(report).unwrap();
    assert!(page.contains("no more of it") && page.contains("role=\"img\""));
    let work = result["work"].as_array().unwrap();
    assert_eq!(work.len(), 16);
    for one in work {
        let name = one["name"].as_str().unwrap();
        let rivals = one["rivals"].as_array().unwrap();
        let names: Vec<&str> = rivals
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        let wanted: &[&str] = match name {
            _ if name.starts_with("cached") => {
                &["firecracker-sync", "firecracker-async", "cloud-hypervisor"]
            }
            // Firecracker cannot pass the page cache by.
            _ if name.contains("depth") => &["cloud-hypervisor"],
            _ => &["firecracker", "cloud-hypervisor"],
        };
        assert_eq!(names, wanted, "{one:#}");
        for rival in rivals {
            let failed = name == "receive 1514 bytes" && rival["name"] == "cloud-hypervisor";
            let rates = rival["per_second"].as_array().unwrap();
            assert_eq!(rates.is_empty(), failed, "{one:#}");
            assert_eq!(rival["kvmlet_to_it"].is_object(), !failed, "{one:#}");
        }
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

/// Without its guests nothing can be measured, which is said, and no tap or file stays. Who hears no signal is not asked for longer.
fn fails() {
    let cache = Cache::new();
    let deaf = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\ntrap '' TERM INT HUP; while :; do sleep 1; done\n";
    let path = deaf.path().join("firecracker");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let result = cache.json_with(deaf.path(), &["io", "--rounds", "1"]);
    assert_eq!(result["peers"][0]["presence"]["state"], "unusable");
    // A page that cannot be written takes no result along.
    let command = &mut cache.bench(&["io", "--rounds", "1", "--report", "/dev/full"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 rounds, host and guest in turn"), "{text}");
    assert_eq!(output.status.code(), Some(125), "{text}");
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
