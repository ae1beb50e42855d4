//! VMs of which no more is saved than what has changed.

use crate::client::Served;
use crate::harness::Test;
use rustix::fs::{SeekFrom, seek};
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

pub const TESTS: &[Test] = &[(
    "what_has_changed_is_put_into_the_file_of_memory",
    put_together,
)];

/// Saved after another round, to files of that name.
fn save(vm: &Served, name: &str, memory: &Path) -> (PathBuf, u64) {
    let round = vm.round();
    vm.go("Paused");
    let state = vm.file(&format!("{name}.state"));
    let wish = json!({ "snapshot_type": "Diff", "snapshot_path": state, "mem_file_path": memory });
    vm.done("PUT", "/snapshot/create", &wish);
    vm.go("Resumed");
    (state, round)
}

/// One that goes on from these files, after that round at the least.
fn load(state: &Path, memory: &Path, round: u64) -> Served {
    let vm = Served::new();
    let backend = json!({ "backend_type": "File", "backend_path": memory });
    let wish = json!({ "snapshot_path": state, "mem_backend": backend, "resume_vm": true, "track_dirty_pages": true });
    vm.done("PUT", "/snapshot/load", &wish);
    assert!(vm.round() > round);
    vm
}

/// As Firecracker's `snapshot-editor` puts a difference into its base: all that is no hole.
fn rebase(base: &Path, difference: &Path) {
    let base = File::options().write(true).open(base).unwrap();
    let from = File::open(difference).unwrap();
    let mut place = 0;
    while let Ok(data) = seek(&from, SeekFrom::Data(place)) {
        place = seek(&from, SeekFrom::Hole(data)).unwrap();
        let mut bytes = vec![0; (place - data) as usize];
        from.read_exact_at(&mut bytes, data).unwrap();
        base.write_all_at(&bytes, data).unwrap();
    }
}

fn taken(path: &Path) -> u64 {
    path.metadata().unwrap().blocks() * 512
}

fn put_together() {
    let vm = Served::new();
    vm.describe("saved", "");
    vm.done(
        "PATCH",
        "/machine-config",
        &json!({ "track_dirty_pages": true }),
    );
    vm.act("InstanceStart");
    let place = |name: &str| vm.file(name);
    let (whole, small) = (place("whole"), place("small"));
    // Since nothing: all.
    let (state, round) = save(&vm, "first", &whole);
    // What is written into a file that a VM has, the VM has as well: this one has a copy.
    std::fs::copy(&whole, place("copy")).unwrap();
    let first = load(&state, &place("copy"), round);
    let before = taken(&whole);
    let (state, round) = save(&vm, "second", &small);
    assert!(taken(&small) < before / 2, "{} of {before}", taken(&small));
    // Alone it is of no use, and the process ends, as always when a load fails.
    let alone = Served::new();
    let backend = json!({ "backend_type": "File", "backend_path": small });
    let wish = json!({ "snapshot_path": state, "mem_backend": backend, "resume_vm": true });
    let refused = alone.refused("PUT", "/snapshot/load", &wish);
    assert!(refused.contains("base"), "{refused}");
    // Nor does a VM go on from another time than the one that was named, where that was not put together.
    let other = Served::new();
    let backend = json!({ "backend_type": "File", "backend_path": whole });
    let wish = json!({ "snapshot_path": state, "mem_backend": backend, "resume_vm": true });
    let refused = other.refused("PUT", "/snapshot/load", &wish);
    assert!(refused.contains("was saved at another time"), "{refused}");
    rebase(&whole, &small);
    other.done("PUT", "/snapshot/load", &wish);
    assert!(other.round() > round);
    // It is the base as well, with what was put into it, and has the next one written into it.
    let (state, round) = save(&vm, "third", &whole);
    let third = load(&state, &whole, round);
    let (state, round) = save(&third, "fourth", &whole);
    load(&state, &whole, round);
    // Who has gone on from a file saves what has changed since.
    save(&first, "fifth", &place("fifth"));
    assert!(taken(&place("fifth")) < before / 2);
}
