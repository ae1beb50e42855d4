//! A VM's life by requests: described, started, paused, saved, going on elsewhere, ended.

use crate::client::{Served, ask, children};
use crate::harness::pager::{Oddities, Pager};
use crate::harness::{Test, deadline, has_ended, program};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("curl_drives_a_vm_from_its_description_to_its_end", curl),
    ("a_vm_is_saved_and_goes_on_in_another_process", saved),
    (
        "what_is_no_snapshot_is_told_before_the_process_ends",
        no_snapshot,
    ),
    (
        "memory_of_a_snapshot_comes_from_a_page_fault_handler",
        by_page,
    ),
    ("a_start_that_fails_is_told_and_can_be_tried_again", failing),
    ("a_vm_ends_with_its_process_whoever_kills_that", killed),
];

/// What curl prints: the body, and the status behind it.
fn by_curl(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> String {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--max-time",
        "60",
        "--write-out",
        "%{http_code}",
    ]);
    curl.arg("--unix-socket").arg(socket);
    curl.args(["-X", method])
        .arg(format!("http://localhost{path}"));
    if let Some(body) = body {
        curl.args(["-H", "Content-Type: application/json", "-d"])
            .arg(body.to_string());
    }
    let output = curl.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn curl() {
    let mut vm = Served::new();
    let disk = vm.file("disk");
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    let socket = vm.socket.clone();
    let ask = |method: &str, path: &str, body: Value| by_curl(&socket, method, path, Some(&body));
    let boot = json!({ "kernel_image_path": program("saved"), "boot_args": "mmio=0xd0002000" });
    assert_eq!(ask("PUT", "/boot-source", boot), "204");
    let machine = json!({ "vcpu_count": 1, "mem_size_mib": 32 });
    assert_eq!(ask("PUT", "/machine-config", machine), "204");
    let drive = json!({ "drive_id": "rootfs", "path_on_host": disk, "is_root_device": true, "is_read_only": false });
    assert_eq!(ask("PUT", "/drives/rootfs", drive), "204");
    // Firecracker has one only where it is asked for, and the guest finds its disk where that would be else.
    assert_eq!(ask("PUT", "/entropy", json!({})), "204");
    let start = json!({ "action_type": "InstanceStart" });
    assert_eq!(ask("PUT", "/actions", start.clone()), "204");
    assert!(ask("PUT", "/actions", start).ends_with("400"));
    let first = vm.round();
    assert_eq!(ask("PATCH", "/vm", json!({ "state": "Paused" })), "204");
    assert!(vm.is_silent());
    let told = by_curl(&socket, "GET", "/", None);
    assert!(
        told.contains(r#""state":"Paused""#) && told.ends_with("200"),
        "{told}"
    );
    assert_eq!(ask("PATCH", "/vm", json!({ "state": "Resumed" })), "204");
    assert!(vm.round() > first);
    vm.input.write_all(b"q").unwrap();
    assert_eq!(vm.wait().code(), Some(0));
}

fn save(vm: &Served, name: &str) -> [std::path::PathBuf; 2] {
    let files = [
        vm.file(&format!("{name}.state")),
        vm.file(&format!("{name}.memory")),
    ];
    let [state, memory] = &files;
    let wish = json!({ "snapshot_type": "Full", "snapshot_path": state, "mem_file_path": memory });
    vm.done("PUT", "/snapshot/create", &wish);
    files
}

fn saved() {
    let vm = Served::new();
    vm.describe("saved", "");
    vm.act("InstanceStart");
    let first = vm.round();
    let wish = json!({ "snapshot_path": vm.file("s"), "mem_file_path": vm.file("m") });
    let early = vm.refused("PUT", "/snapshot/create", &wish);
    assert!(early.contains("paused"), "{early}");
    vm.go("Paused");
    let nowhere = json!({ "snapshot_path": "/nowhere/s", "mem_file_path": vm.file("m") });
    let nowhere = vm.refused("PUT", "/snapshot/create", &nowhere);
    assert!(nowhere.contains("/nowhere/s"), "{nowhere}");
    assert!(!vm.file("m").exists());
    let [state, memory] = save(&vm, "one");
    assert_eq!(vm.state(), "Paused");

    let load = |resume: bool| {
        let backend = json!({ "backend_type": "File", "backend_path": memory });
        json!({ "snapshot_path": state, "mem_backend": backend, "resume_vm": resume })
    };
    let clone = Served::new();
    clone.done("PUT", "/snapshot/load", &load(false));
    assert_eq!(clone.state(), "Paused");
    assert!(clone.is_silent());
    clone.go("Resumed");
    let next = clone.round();
    assert!(next > first, "{next} {first}");
    // And the one that was saved goes on as well, and a second one beside it at once.
    vm.go("Resumed");
    assert!(vm.round() > first);
    let mut second = Served::new();
    second.done("PUT", "/snapshot/load", &load(true));
    assert_eq!(second.state(), "Running");
    let come = second.round();
    // What was restored is saved, and goes on.
    second.go("Paused");
    let [state, memory] = save(&second, "two");
    second.go("Resumed");
    second.input.write_all(b"q").unwrap();
    assert_eq!(second.wait().code(), Some(0));
    let third = Served::new();
    let (status, _) = third.ask(
        "PUT",
        "/snapshot/load",
        &json!({ "snapshot_path": state, "mem_file_path": memory, "resume_vm": true }).to_string(),
    );
    assert_eq!(status, 204);
    assert!(third.round() > come);
    let too_late = third.refused("PUT", "/snapshot/load", &load(true));
    assert!(too_late.contains("after starting"), "{too_late}");
}

/// The handler has the file of memory, and Firecracker's process only the other one; whose handler is gone ends, one that is not there
/// is told of. Pages of another kind are there, or told to be missing.
fn by_page() {
    let vm = Served::new();
    vm.describe("saved", "");
    vm.act("InstanceStart");
    let first = vm.round();
    vm.go("Paused");
    let [state, memory] = save(&vm, "one");
    let elsewhere = vm.file("elsewhere");
    std::fs::rename(&memory, &elsewhere).unwrap();
    let socket = vm.file("pager");
    let load = |pages: &str, path: &Path| {
        let backend = json!({ "backend_type": "Uffd", "backend_path": path });
        json!({ "snapshot_path": state, "mem_backend": backend, "resume_vm": true, "huge_pages": pages })
    };
    let mut vain = Served::new();
    let told = vain.refused("PUT", "/snapshot/load", &load("Snapshot", &socket));
    assert!(told.contains("no program that has guest memory"), "{told}");
    assert_eq!(vain.wait().code(), Some(152));
    let pager = Pager::start(&socket, &elsewhere, Oddities::default());
    let mut clone = Served::new();
    clone.done("PUT", "/snapshot/load", &load("Snapshot", &socket));
    assert!(clone.round() > first);
    let touched = pager.answered();
    assert!((1..400).contains(&touched), "{touched}");
    // That one is saved as a whole, and what backs memory is another file's then.
    clone.go("Paused");
    let files = save(&clone, "two");
    let mut third = Served::new();
    let file = json!({ "snapshot_path": files[0], "mem_file_path": files[1], "resume_vm": true, "huge_pages": "Transparent" });
    third.done("PUT", "/snapshot/load", &file);
    assert!(third.round() > first);
    let (_, config) = third.ask("GET", "/machine-config", "");
    assert!(config.contains(r#""huge_pages":"Transparent""#), "{config}");
    third.input.write_all(b"q").unwrap();
    assert_eq!(third.wait().code(), Some(0));
    clone.go("Resumed");
    drop(pager);
    assert_ne!(clone.wait().code(), Some(0));
}

fn no_snapshot() {
    let refusals = [
        (json!({ "kvmlet_snapshot": 2, "vm": {} }), "its form is 2"),
        (json!({ "a": 1 }), "none that was saved here"),
        (
            json!({ "kvmlet_snapshot": 1, "vm": {} }),
            "Load snapshot error",
        ),
    ];
    for (place, (manifest, part)) in refusals.iter().enumerate() {
        let mut vm = Served::new();
        let (state, memory) = (vm.file("state"), vm.file("memory"));
        std::fs::write(&state, manifest.to_string()).unwrap();
        std::fs::write(&memory, "nothing").unwrap();
        let load = json!({ "snapshot_path": state, "mem_file_path": memory });
        let told = vm.refused("PUT", "/snapshot/load", &load);
        assert!(told.contains(part), "{told}");
        match place {
            // Nothing was begun.
            0 | 1 => assert_eq!(vm.state(), "Not started"),
            _ => assert_eq!(vm.wait().code(), Some(152)),
        }
    }
    let vm = Served::new();
    for (load, field) in [
        (
            json!({ "snapshot_path": "", "mem_file_path": "m" }),
            "snapshot_path",
        ),
        (
            json!({ "snapshot_path": "s", "mem_file_path": "" }),
            "mem_file_path",
        ),
        (
            json!({ "snapshot_path": "s", "mem_backend": { "backend_type": "Uffd", "backend_path": "" } }),
            "mem_backend.backend_path",
        ),
    ] {
        let told = vm.refused("PUT", "/snapshot/load", &load);
        assert!(told.contains(&format!("{field} is empty")), "{told}");
        assert_eq!(vm.state(), "Not started");
    }
    vm.describe("ready", "");
    let load = json!({ "snapshot_path": "s", "mem_file_path": "m" });
    let told = vm.refused("PUT", "/snapshot/load", &load);
    assert!(
        told.contains("after configuring boot-specific resources"),
        "{told}"
    );
}

fn failing() {
    let vm = Served::new();
    let start = json!({ "action_type": "InstanceStart" });
    let told = vm.refused("PUT", "/actions", &start);
    assert!(told.contains("without kernel"), "{told}");
    vm.describe("ready_stay", "");
    vm.done(
        "PUT",
        "/boot-source",
        &json!({ "kernel_image_path": "/dev/null" }),
    );
    let told = vm.refused("PUT", "/actions", &start);
    assert!(told.contains("/dev/null"), "{told}");
    assert_eq!(vm.state(), "Not started");
    vm.describe("ready_stay", "");
    vm.act("InstanceStart");
    assert_eq!(vm.state(), "Running");
    assert_eq!(vm.line(), "ready");
}

fn killed() {
    for starts in [false, true] {
        let mut vm = Served::new();
        if starts {
            vm.describe("spin", "");
            vm.act("InstanceStart");
        } else {
            // By then the process that waits for a VM is there.
            assert_eq!(ask(&vm.socket, "GET", "/", "").0, 200);
        }
        let all = children(vm.process.id());
        assert!(!all.is_empty());
        vm.process.kill().unwrap();
        vm.wait();
        let since = Instant::now();
        while !all.iter().all(|pid| has_ended(*pid)) {
            assert!(since.elapsed() < deadline(), "{all:?} are still there");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
