//! VMs of images that share a layer: it is in the host's memory once.

use crate::cli::{Running, kvmlet};
use crate::harness::{Test, deadline};
use crate::virtio::BLK;
use std::fs::{File, read_to_string};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;
use tempfile::TempDir;

pub const TESTS: &[Test] = &[("disk_of_ten_vms_is_in_memory_once", shared)];

const MIB: u64 = 1 << 20;
/// Of the layer that all images have, and of each one's own.
const BASE: u64 = 32 * MIB;
const OWN: u64 = MIB;
const VMS: usize = 10;
/// What a VM may have for itself: a guest's program and its buffers, the VMM's, and nothing of what it has read.
const MOST: u64 = 8 * MIB;

/// A file that is on the disk only, as far as its file system has a disk.
fn file(place: &TempDir, name: &str, length: u64) -> String {
    let path = place.path().join(name);
    let bytes: Vec<u8> = (0..length).map(|at| (at / 4096 % 251) as u8).collect();
    std::fs::write(&path, bytes).unwrap();
    let file = File::open(&path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    path.into_os_string().into_string().unwrap()
}

/// Memory of a process that is no page of a file, in bytes.
fn own_memory(pid: u32) -> u64 {
    let text = read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let kib = |key: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    };
    (kib("Pss:") - kib("Pss_File:")) << 10
}

/// How much of a file is in the host's cache, in bytes.
fn cached(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len() as usize;
    let mut pages = vec![0_u8; length.div_ceil(4096)];
    // SAFETY: a mapping of the file's whole length, which nobody looks into; the vector has a byte for each page.
    unsafe {
        let (rights, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        let file = std::os::fd::AsRawFd::as_raw_fd(&file);
        let mapped = libc::mmap(std::ptr::null_mut(), length, rights, flags, file, 0);
        assert_ne!(mapped, libc::MAP_FAILED);
        assert_eq!(libc::mincore(mapped, length, pages.as_mut_ptr()), 0);
        libc::munmap(mapped, length);
    }
    pages.iter().filter(|page| **page & 1 == 1).count() as u64 * 4096
}

fn shared() {
    let place = tempfile::tempdir().unwrap();
    let base = file(&place, "base", BASE);
    let mut vms: Vec<Running> = (0..VMS)
        .map(|number| {
            let own = file(&place, &format!("own-{number}"), OWN);
            let config = serde_json::json!({
                "jail": "off",
                "cmdline": format!("{BLK} only=read ops=8 large_ops=33 stay=1"),
                "disks": [{
                    "path": [
                        {"path": own, "offset": 0, "bytes": OWN},
                        {"path": base, "offset": 0, "bytes": BASE},
                    ],
                    "read_only": true,
                }],
            });
            let path = place.path().join(format!("config-{number}"));
            std::fs::write(&path, config.to_string()).unwrap();
            let mut command = kvmlet("virtio_blk_bench");
            Running::spawn(command.arg("--config").arg(path).stdout(Stdio::piped()))
        })
        .collect();
    let since = Instant::now();
    for vm in &mut vms {
        let mut console = BufReader::new(vm.stdout.take().unwrap()).lines();
        let read = console.find(|line| line.as_ref().unwrap().starts_with("read1m"));
        assert!(read.unwrap().unwrap().contains("ops=33"));
        assert!(since.elapsed() < deadline());
    }
    let memory: Vec<u64> = vms.iter().map(|vm| own_memory(vm.id())).collect();
    println!(
        "{memory:?} bytes of {VMS} VMs, which have read {} each",
        BASE + OWN
    );
    assert!(memory.iter().all(|bytes| *bytes < MOST), "{memory:?}");
    // All of them have read it, and from there.
    assert_eq!(cached(Path::new(&base)), BASE);
}
