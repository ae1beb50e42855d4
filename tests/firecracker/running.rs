//! What can be changed of a VM while its guest runs, and what it tells.

use crate::client::Served;
use crate::harness::Test;
use serde_json::{Value, json};

pub const TESTS: &[Test] = &[
    ("limits_and_sizes_change_while_a_guest_runs", changes),
    ("measurements_and_messages_go_where_they_are_to", files),
    ("ctrl_alt_del_is_told_where_nobody_hears_it", no_button),
];

fn bucket(size: u64) -> Value {
    json!({ "size": size, "one_time_burst": null, "refill_time": 1000 })
}

fn changes() {
    let vm = Served::new();
    vm.describe("saved", "");
    let disk = vm.file("disk");
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let drive = json!({ "drive_id": "d", "path_on_host": disk, "is_root_device": false });
    vm.done("PUT", "/drives/d", &drive);
    let balloon = json!({ "amount_mib": 0, "deflate_on_oom": true, "stats_polling_interval_s": 1 });
    vm.done("PUT", "/balloon", &balloon);
    vm.act("InstanceStart");
    vm.round();
    let limits = json!({ "drive_id": "d", "rate_limiter": { "ops": bucket(100) } });
    vm.done("PATCH", "/drives/d", &limits);
    let more = json!({ "drive_id": "d", "rate_limiter": { "bandwidth": bucket(5000) }, "path_on_host": disk });
    vm.done("PATCH", "/drives/d", &more);
    let drive = &vm.told("/vm/config")["drives"][0];
    assert_eq!(drive["rate_limiter"]["ops"]["size"], 100);
    assert_eq!(drive["rate_limiter"]["bandwidth"]["size"], 5000);
    let other = json!({ "drive_id": "d", "path_on_host": "/dev/zero" });
    let told = vm.refused("PATCH", "/drives/d", &other);
    assert!(
        told.contains("another path_on_host is not supported"),
        "{told}"
    );
    let none = json!({ "drive_id": "e", "rate_limiter": {} });
    assert_eq!(
        vm.refused("PATCH", "/drives/e", &none),
        "There is no drive `e`."
    );
    let none = json!({ "iface_id": "eth0" });
    assert!(
        vm.refused("PATCH", "/network-interfaces/eth0", &none)
            .contains("no interface")
    );
    vm.done("PATCH", "/balloon", &json!({ "amount_mib": 2 }));
    assert_eq!(vm.told("/balloon")["amount_mib"], 2);
    let told = vm.told("/balloon/statistics");
    assert_eq!(
        (&told["target_mib"], &told["actual_mib"]),
        (&json!(2), &json!(0))
    );
    let told = vm.refused("PATCH", "/balloon", &json!({ "amount_mib": 500 }));
    assert!(told.contains("500"), "{told}");
    vm.done(
        "PATCH",
        "/balloon/statistics",
        &json!({ "stats_polling_interval_s": 5 }),
    );
    vm.refused(
        "PATCH",
        "/balloon/statistics",
        &json!({ "stats_polling_interval_s": 0 }),
    );
    // It has had no harm by any of that.
    let round = vm.round();
    assert!(vm.round() > round);
}

fn files() {
    let vm = Served::with(|command, place| {
        command
            .arg("--log-path")
            .arg(place.join("log"))
            .args(["--show-level", "--id", "vm-7"]);
    });
    vm.done(
        "PUT",
        "/serial",
        &json!({ "serial_out_path": vm.file("serial") }),
    );
    let metrics = json!({ "metrics_path": vm.file("metrics"), "emit_id": true, "properties": { "zone": "a" } });
    vm.done("PUT", "/metrics", &metrics);
    vm.describe("saved", "");
    vm.act("InstanceStart");
    let read = |name: &str| std::fs::read_to_string(vm.file(name)).unwrap();
    while !read("serial").contains("round=") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    vm.act("FlushMetrics");
    vm.act("FlushMetrics");
    let lines: Vec<Value> = read("metrics")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[1]["id"], &lines[1]["properties"]["zone"]),
        (&json!("vm-7"), &json!("a"))
    );
    let exits = |line: &Value| line["vcpu"]["exit_io_out"].as_u64().unwrap();
    // Each tells what is new, and a guest that prints has done something by the first one.
    assert!(exits(&lines[0]) > 10, "{}", lines[0]);
    let told = vm.refused("PUT", "/vsock", &json!({ "guest_cid": 3, "uds_path": "v" }));
    let log = read("log");
    assert!(
        log.contains(" [vm-7:main:ERROR] PUT /vsock is refused: "),
        "{log}"
    );
    assert!(log.contains(&told), "{log}");
}

fn no_button() {
    let vm = Served::new();
    vm.describe("spin", "");
    vm.act("InstanceStart");
    let told = vm.refused(
        "PUT",
        "/actions",
        &json!({ "action_type": "SendCtrlAltDel" }),
    );
    assert!(told.contains("power button"), "{told}");
    assert_eq!(vm.state(), "Running");
    // One that hears it ends.
    let mut vm = Served::new();
    vm.describe("power_button", "");
    vm.act("InstanceStart");
    vm.line();
    let since = std::time::Instant::now();
    while vm
        .ask("PUT", "/actions", r#"{"action_type": "SendCtrlAltDel"}"#)
        .0
        != 204
    {
        assert!(since.elapsed() < crate::harness::deadline());
    }
    assert_eq!(vm.wait().code(), Some(0));
}
