//! Every operation of Firecracker 1.17's description: when it can be asked for, with which body, and what that has to have.
//!
//! One table, for tests of requests without a VM, for those with one, and for the description that generated requests are made from.

use serde_json::{Value, json};

/// When something can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    Before,
    After,
    /// It is refused as a whole, by these words.
    Never(&'static str),
}

/// An operation, a body with every field that is taken, and the fields that have to be there.
#[derive(Clone, Debug)]
pub struct Operation {
    pub method: &'static str,
    pub path: &'static str,
    pub when: When,
    pub needs: &'static [&'static str],
    /// Null where it has none.
    pub body: Value,
}

/// Operations there are, `/actions` counted once.
pub const OPERATIONS: usize = 38;

/// All of them, in an order in which a VM can be asked.
pub fn operations() -> Vec<Operation> {
    [before(), after(), always(), never()].concat()
}

fn put(path: &'static str, needs: &'static [&'static str], body: Value) -> Operation {
    Operation {
        method: "PUT",
        path,
        when: When::Before,
        needs,
        body,
    }
}

fn limiter() -> Value {
    let bucket = json!({ "size": 1000, "one_time_burst": 5, "refill_time": 100 });
    json!({ "bandwidth": bucket, "ops": bucket })
}

fn action(when: When, name: &str) -> Operation {
    let body = json!({ "action_type": name });
    Operation {
        when,
        ..put("/actions", &["action_type"], body)
    }
}

fn before() -> Vec<Operation> {
    let file = "/dev/null";
    vec![
        put(
            "/boot-source",
            &["kernel_image_path"],
            json!({ "kernel_image_path": file, "initrd_path": file, "boot_args": "quiet" }),
        ),
        put(
            "/machine-config",
            &["vcpu_count", "mem_size_mib"],
            json!({
                "vcpu_count": 2, "mem_size_mib": 256, "smt": false, "cpu_template": "None",
                "track_dirty_pages": false, "huge_pages": "2M",
            }),
        ),
        put(
            "/cpu-config",
            &[],
            json!({
                "kvm_capabilities": ["0"],
                "cpuid_modifiers": [{
                    "leaf": "0x1", "subleaf": "0x0", "flags": 0,
                    "modifiers": [{ "register": "ecx", "bitmap": "0b0xxxxxxxxxxxxx" }],
                }],
                "msr_modifiers": [{ "addr": "0x1a0", "bitmap": "0b1xxx" }],
            }),
        ),
        Operation {
            method: "PATCH",
            ..put(
                "/machine-config",
                &[],
                json!({
                    "vcpu_count": 2, "mem_size_mib": 128, "smt": false, "cpu_template": "None",
                    "track_dirty_pages": false, "huge_pages": "None",
                }),
            )
        },
        put(
            "/drives/root_1",
            &["drive_id", "is_root_device"],
            json!({
                "drive_id": "root_1", "path_on_host": file, "is_root_device": true, "is_read_only": true,
                "partuuid": "0eaa", "cache_type": "Writeback", "io_engine": "Async", "rate_limiter": limiter(),
            }),
        ),
        put(
            "/network-interfaces/eth0",
            &["iface_id", "host_dev_name"],
            json!({
                "iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "06:00:00:00:00:01",
                "rx_rate_limiter": limiter(), "tx_rate_limiter": limiter(),
            }),
        ),
        put(
            "/mmds/config",
            &["network_interfaces"],
            json!({
                "network_interfaces": ["eth0"], "version": "V2", "ipv4_address": "169.254.169.254",
                "imds_compat": true,
            }),
        ),
        put(
            "/vsock",
            &["guest_cid", "uds_path"],
            json!({ "guest_cid": 3, "uds_path": "v.sock", "vsock_id": "v" }),
        ),
        put(
            "/balloon",
            &["amount_mib", "deflate_on_oom"],
            json!({
                "amount_mib": 8, "deflate_on_oom": true, "stats_polling_interval_s": 1,
                "free_page_hinting": false, "free_page_reporting": true,
            }),
        ),
        // Limits of these two are refused, as the MTU above: see the tests of what is described.
        put("/entropy", &[], json!({})),
        put("/serial", &[], json!({ "serial_out_path": file })),
        put(
            "/logger",
            &[],
            json!({ "log_path": file, "level": "Warning", "show_level": true, "show_log_origin": true }),
        ),
        put(
            "/metrics",
            &["metrics_path"],
            json!({ "metrics_path": file, "emit_id": true, "properties": { "zone": "a" } }),
        ),
        put(
            "/snapshot/load",
            &["snapshot_path"],
            json!({
                "snapshot_path": "/nowhere/s", "mem_backend": { "backend_type": "File", "backend_path": "m" },
                "enable_diff_snapshots": false, "track_dirty_pages": false, "resume_vm": true,
                "network_overrides": [{ "iface_id": "eth0", "host_dev_name": "tap1" }],
                "vsock_override": { "uds_path": "v" }, "huge_pages": "None", "clock_realtime": true,
                "drive_overrides": [{ "drive_id": "root_1", "path_on_host": file }],
            }),
        ),
        action(When::Before, "InstanceStart"),
    ]
}

fn after() -> Vec<Operation> {
    let patch = |path, needs, body| Operation {
        method: "PATCH",
        when: When::After,
        ..put(path, needs, body)
    };
    vec![
        action(When::After, "SendCtrlAltDel"),
        action(When::After, "FlushMetrics"),
        patch(
            "/drives/root_1",
            &["drive_id"],
            json!({ "drive_id": "root_1", "path_on_host": "/dev/null", "rate_limiter": limiter() }),
        ),
        patch(
            "/network-interfaces/eth0",
            &["iface_id"],
            json!({ "iface_id": "eth0", "rx_rate_limiter": limiter(), "tx_rate_limiter": limiter() }),
        ),
        patch("/balloon", &["amount_mib"], json!({ "amount_mib": 4 })),
        patch(
            "/balloon/statistics",
            &["stats_polling_interval_s"],
            json!({ "stats_polling_interval_s": 2 }),
        ),
        Operation {
            method: "GET",
            ..patch("/balloon/statistics", &[], Value::Null)
        },
        patch("/vm", &["state"], json!({ "state": "Paused" })),
        Operation {
            method: "PUT",
            ..patch(
                "/snapshot/create",
                &["snapshot_path", "mem_file_path"],
                json!({ "snapshot_type": "Full", "snapshot_path": "s", "mem_file_path": "m" }),
            )
        },
    ]
}

fn always() -> Vec<Operation> {
    let paths = [
        "/",
        "/version",
        "/vm/config",
        "/machine-config",
        "/balloon",
        "/mmds",
    ];
    let told = |path| Operation {
        method: "GET",
        when: When::Always,
        ..put(path, &[], Value::Null)
    };
    let stored = |method, body| Operation {
        method,
        when: When::Always,
        ..put("/mmds", &[], body)
    };
    let stored = [
        stored("PUT", json!({ "latest": { "name": "vm" }, "list": [1] })),
        stored("PATCH", json!({ "latest": { "name": null } })),
    ];
    stored
        .into_iter()
        .chain(paths.into_iter().map(told))
        .collect()
}

impl Operation {
    /// Is its body any JSON there is?
    pub fn is_free(&self) -> bool {
        self.path == "/mmds" && !self.body.is_null()
    }
}

fn never() -> Vec<Operation> {
    let pmem = "pmem is not supported: ";
    let hotplug = "memory-hotplug is not supported: ";
    let hinting = "balloon hinting is not supported: ";
    let all = [
        ("PUT", "/pmem/p0", pmem),
        ("PATCH", "/pmem/p0", pmem),
        ("PUT", "/hotplug/memory", hotplug),
        ("PATCH", "/hotplug/memory", hotplug),
        ("GET", "/hotplug/memory", hotplug),
        ("PATCH", "/balloon/hinting/start", hinting),
        ("GET", "/balloon/hinting/status", hinting),
        ("PATCH", "/balloon/hinting/stop", hinting),
    ];
    let refused = |(method, path, told)| {
        let body = match method {
            "GET" => Value::Null,
            _ => json!({}),
        };
        let when = When::Never(told);
        Operation {
            method,
            when,
            ..put(path, &[], body)
        }
    };
    all.into_iter().map(refused).collect()
}
