//! Every request that has a body.

use super::super::When;
use crate::http::Method;
use serde_json::{Value, json};

/// A request, its body, and which fields have to be there. What is there beside them may be missing.
pub struct Asked {
    pub method: Method,
    pub path: &'static str,
    pub body: Value,
    pub needs: &'static [&'static str],
    pub when: When,
}

fn asked(
    when: When,
    method: Method,
    path: &'static str,
    needs: &'static [&'static str],
    body: Value,
) -> Asked {
    Asked {
        method,
        path,
        body,
        needs,
        when,
    }
}

pub fn bodies() -> Vec<Asked> {
    use Method::{Patch, Put};
    use When::{After, Before};
    let limiter = || {
        let bucket = json!({ "size": 1000, "one_time_burst": 5, "refill_time": 100 });
        json!({ "bandwidth": bucket, "ops": bucket })
    };
    let file = "/dev/null";
    vec![
        asked(
            Before,
            Put,
            "/boot-source",
            &["kernel_image_path"],
            json!({
                "kernel_image_path": file, "initrd_path": file, "boot_args": "quiet",
            }),
        ),
        asked(
            Before,
            Put,
            "/machine-config",
            &["vcpu_count", "mem_size_mib"],
            json!({
                "vcpu_count": 2, "mem_size_mib": 256, "smt": false, "cpu_template": "None",
                "track_dirty_pages": false, "huge_pages": "2M",
            }),
        ),
        asked(
            Before,
            Patch,
            "/machine-config",
            &[],
            json!({ "vcpu_count": 2, "mem_size_mib": 128 }),
        ),
        asked(
            Before,
            Put,
            "/drives/root_1",
            &["drive_id", "is_root_device"],
            json!({
                "drive_id": "root_1", "path_on_host": file, "is_root_device": true, "is_read_only": true,
                "partuuid": "0eaa", "cache_type": "Writeback", "io_engine": "Async", "rate_limiter": limiter(),
            }),
        ),
        asked(
            Before,
            Put,
            "/network-interfaces/eth0",
            &["iface_id", "host_dev_name"],
            json!({
                "iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "06:00:00:00:00:01", "mtu": 1500,
                "rx_rate_limiter": limiter(), "tx_rate_limiter": limiter(),
            }),
        ),
        asked(
            Before,
            Put,
            "/vsock",
            &["guest_cid", "uds_path"],
            json!({ "guest_cid": 3, "uds_path": "v.sock" }),
        ),
        asked(
            Before,
            Put,
            "/balloon",
            &["amount_mib", "deflate_on_oom"],
            json!({
                "amount_mib": 8, "deflate_on_oom": true, "stats_polling_interval_s": 1, "free_page_reporting": true,
            }),
        ),
        asked(Before, Put, "/entropy", &[], json!({})),
        asked(
            Before,
            Put,
            "/serial",
            &[],
            json!({ "serial_out_path": file }),
        ),
        asked(
            Before,
            Put,
            "/logger",
            &[],
            json!({
                "log_path": file, "level": "Warning", "show_level": true, "show_log_origin": true,
            }),
        ),
        asked(
            Before,
            Put,
            "/metrics",
            &["metrics_path"],
            json!({ "metrics_path": file, "emit_id": true, "properties": { "zone": "a" } }),
        ),
        asked(
            Before,
            Put,
            "/actions",
            &["action_type"],
            json!({ "action_type": "InstanceStart" }),
        ),
        asked(
            After,
            Put,
            "/actions",
            &["action_type"],
            json!({ "action_type": "SendCtrlAltDel" }),
        ),
        asked(
            After,
            Put,
            "/actions",
            &["action_type"],
            json!({ "action_type": "FlushMetrics" }),
        ),
        asked(
            After,
            Patch,
            "/vm",
            &["state"],
            json!({ "state": "Paused" }),
        ),
        asked(
            After,
            Patch,
            "/drives/root_1",
            &["drive_id"],
            json!({ "drive_id": "root_1", "rate_limiter": limiter() }),
        ),
        asked(
            After,
            Patch,
            "/network-interfaces/eth0",
            &["iface_id"],
            json!({
                "iface_id": "eth0", "rx_rate_limiter": limiter(), "tx_rate_limiter": limiter(),
            }),
        ),
        asked(
            After,
            Patch,
            "/balloon",
            &["amount_mib"],
            json!({ "amount_mib": 4 }),
        ),
        asked(
            After,
            Patch,
            "/balloon/statistics",
            &["stats_polling_interval_s"],
            json!({ "stats_polling_interval_s": 2 }),
        ),
        asked(
            After,
            Put,
            "/snapshot/create",
            &["snapshot_path", "mem_file_path"],
            json!({
                "snapshot_type": "Full", "snapshot_path": "s", "mem_file_path": "m",
            }),
        ),
        asked(
            Before,
            Put,
            "/snapshot/load",
            &["snapshot_path"],
            json!({
                "snapshot_path": "/nowhere/s", "mem_backend": { "backend_type": "File", "backend_path": "m" }, "resume_vm": true,
                "track_dirty_pages": false, "network_overrides": [], "vsock_override": { "uds_path": "v" },
                "huge_pages": "None", "clock_realtime": true,
            }),
        ),
    ]
}
