//! Guests that ask what they are told of themselves, by TCP over their own network interfaces.

use crate::client::{Served, children};
use crate::harness::packets::enter_own_network;
use crate::harness::{Test, deadline, program};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    (
        "a_guest_finds_its_metadata_and_what_changes_of_them",
        changes,
    ),
    ("who_answers_a_guest_has_nothing_else", confined),
    ("a_vm_outlives_who_answers_it", outlived),
    ("a_vm_that_goes_on_is_given_metadata_anew", anew),
    ("a_file_describes_metadata", file),
];

/// The word of the process that answers a guest.
const ANSWERS: &str = "answer-guests";

fn own_network() {
    enter_own_network().unwrap();
    for tap in ["tap0", "tap1", "tap2", "tap3"] {
        let mut ip = Command::new("ip");
        ip.args(["tuntap", "add", tap, "mode", "tap"]);
        assert!(ip.status().unwrap().success());
        let mut ip = Command::new("ip");
        ip.args(["link", "set", tap, "up"]);
        assert!(ip.status().unwrap().success());
    }
}

/// The guest has two interfaces, and asks by the first.
fn described(vm: &Served, words: &str, config: &Value) {
    vm.describe("metadata", words);
    for (id, tap) in [("eth0", "tap0"), ("eth1", "tap1")] {
        let interface = json!({ "iface_id": id, "host_dev_name": tap });
        vm.done("PUT", &format!("/network-interfaces/{id}"), &interface);
    }
    vm.done("PUT", "/mmds/config", config);
}

/// The process that answers a guest.
fn answering(vm: &Served) -> u32 {
    let mut all = children(vm.process.id()).into_iter();
    let found = all.find(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words
            .split(|byte| *byte == 0)
            .any(|word| word == ANSWERS.as_bytes())
    });
    found.expect("somebody answers the guest")
}

fn changes() {
    own_network();
    let vm = Served::new();
    let config = json!({
        "network_interfaces": ["eth0"], "version": "V2", "ipv4_address": "169.254.170.2",
    });
    let metrics = json!({ "metrics_path": vm.file("metrics") });
    vm.done("PUT", "/metrics", &metrics);
    vm.done("PUT", "/mmds", &json!({ "name": "one" }));
    described(&vm, "token=1 at=169.254.170.2", &config);
    vm.act("InstanceStart");
    assert_eq!(vm.line(), "untold=401");
    assert_eq!(vm.line(), "told=200 one");
    vm.done("PATCH", "/mmds", &json!({ "name": "two", "more": 1 }));
    assert_eq!(vm.line(), "told=200 two");
    assert_eq!(vm.told("/mmds"), json!({ "name": "two", "more": 1 }));
    vm.done("PATCH", "/mmds", &json!({ "name": null }));
    assert_eq!(vm.line(), "told=404 Resource not found: /name.");
    let long = "x".repeat(40_000);
    vm.done(
        "PUT",
        "/mmds",
        &json!({ "name": { "three": {}, "more": long } }),
    );
    assert_eq!(vm.line(), "told=200 more");
    assert_eq!(vm.line(), "three/");
    // Of each request its connection, and of the first that it had no token.
    vm.act("FlushMetrics");
    let lines = std::fs::read_to_string(vm.file("metrics")).unwrap();
    let line: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let counted = |name: &str| line["mmds"][name].as_u64().unwrap();
    assert_eq!(counted("rx_no_token"), 1);
    assert!(counted("connections_created") >= 1, "{line}");
    assert!(counted("rx_accepted") > counted("rx_count"), "{line}");
    assert!(counted("tx_bytes") > 1000, "{line}");
}

fn confined() {
    own_network();
    let vm = Served::new();
    described(&vm, "", &json!({ "network_interfaces": ["eth1", "eth0"] }));
    vm.done("PUT", "/mmds", &json!({ "name": "one" }));
    vm.act("InstanceStart");
    assert_eq!(vm.line(), "told=200 one");
    let pid = answering(&vm);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let mut lines = status.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        found.expect(name).to_owned()
    };
    assert_eq!(field("CapEff"), "0000000000000000");
    assert_eq!((&*field("NoNewPrivs"), &*field("Seccomp")), ("1", "2"));
    assert_eq!(field("Threads"), "1");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    if own.contains("\nUid:\t0\t0\t0\t0\n") {
        assert!(!field("Uid").split('\t').any(|uid| uid == "0"), "{status}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let mut lines = limits.lines();
    let memory = lines.find(|line| line.starts_with("Max address space"));
    assert!(memory.unwrap().contains("268435456"), "{limits}");
}

fn outlived() {
    own_network();
    let vm = Served::new();
    described(&vm, "", &json!({ "network_interfaces": ["eth0"] }));
    vm.done("PUT", "/mmds", &json!({ "name": "one" }));
    vm.act("InstanceStart");
    assert_eq!(vm.line(), "told=200 one");
    let pid = Pid::from_raw(answering(&vm) as i32).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let since = Instant::now();
    // What nobody takes is not said to be done.
    loop {
        let (status, told) = vm.ask("PUT", "/mmds", r#"{"name": "two"}"#);
        if status == 400 {
            assert!(told.contains("takes nothing more"), "{told}");
            break;
        }
        assert!(since.elapsed() < deadline(), "its end is not seen");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(vm.state(), "Running");
    vm.go("Paused");
    vm.go("Resumed");
}

fn anew() {
    own_network();
    let mut vm = Served::new();
    let config = json!({ "network_interfaces": ["eth0"], "version": "V2" });
    described(&vm, "token=1", &config);
    vm.done("PUT", "/mmds", &json!({ "name": "one" }));
    vm.act("InstanceStart");
    assert_eq!(vm.line(), "untold=401");
    assert_eq!(vm.line(), "told=200 one");
    vm.go("Paused");
    let files = json!({ "snapshot_path": vm.file("state"), "mem_file_path": vm.file("memory") });
    vm.done("PUT", "/snapshot/create", &files);
    let before = answering(&vm);
    vm.process.kill().unwrap();
    vm.wait();
    let since = Instant::now();
    let is_there = || {
        let status = std::fs::read_to_string(format!("/proc/{before}/status"));
        status.is_ok_and(|status| !status.contains("\nState:\tZ"))
    };
    while is_there() {
        assert!(since.elapsed() < deadline(), "who answered the guest stays");
        std::thread::sleep(Duration::from_millis(5));
    }
    let other = Served::new();
    let file = json!({ "backend_type": "File", "backend_path": vm.file("memory") });
    // Its own are there until the kernel is done with the process that had them.
    let taps = [("eth0", "tap2"), ("eth1", "tap3")];
    let taps = taps.map(|(id, tap)| json!({ "iface_id": id, "host_dev_name": tap }));
    let load = json!({
        "snapshot_path": vm.file("state"), "mem_backend": file, "resume_vm": true, "network_overrides": taps,
    });
    other.done("PUT", "/snapshot/load", &load);
    // It is another guest now, perhaps, and is told nothing that was said of the first.
    assert_eq!(other.told("/mmds"), json!({}));
    let config = &other.told("/vm/config")["mmds-config"];
    assert_eq!(config["version"], "V2");
    other.done("PUT", "/mmds", &json!({ "name": "two" }));
    while other.line() != "told=200 two" {}
}

fn file() {
    own_network();
    let vm = Served::with(|command, place| {
        let config = json!({
            "boot-source": { "kernel_image_path": program("metadata"), "boot_args": "" },
            "machine-config": { "vcpu_count": 1, "mem_size_mib": 32 },
            "network-interfaces": [{ "iface_id": "eth0", "host_dev_name": "tap0" }],
            "mmds-config": { "network_interfaces": ["eth0"] },
        });
        let data = json!({ "name": "of a file" });
        for (name, text) in [("config", config), ("data", data)] {
            std::fs::write(place.join(name), text.to_string()).unwrap();
        }
        command.arg("--config-file").arg(place.join("config"));
        command.arg("--metadata").arg(place.join("data"));
        command.args(["--mmds-size-limit", "30"]);
    });
    assert_eq!(vm.line(), "told=200 of a file");
    let (status, told) = vm.ask("PATCH", "/mmds", r#"{"more": "than there is room for"}"#);
    assert_eq!(status, 413, "{told}");
    vm.done("PATCH", "/mmds", &json!({ "name": "short" }));
    assert_eq!(vm.line(), "told=200 short");
}
