//! What a VM has done since it was last told, by the names that Firecracker's clients know where the thing is the same.

use super::machine::Machine;
use crate::metadata::Counted;
use kvmlet_spec::{BlockStats, NetStats, Stats};
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// What was told last.
#[derive(Debug, Default)]
pub struct Told(Value);

impl Told {
    /// A line of measurements of the VM with this id.
    pub fn line(
        &mut self,
        id: &str,
        stats: &Stats,
        (machine, metadata): (&Machine, Counted),
        start_us: Option<u64>,
    ) -> String {
        let mut now = counters(stats, machine);
        let mmds = metadata
            .all()
            .map(|(name, count)| (name.into(), json!(count)));
        now["mmds"] = Value::Object(Map::from_iter(mmds));
        let mut line = since(&now, &self.0);
        self.0 = now;
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        line["utc_timestamp_ms"] = json!(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        line["api_server"] = json!({ "process_startup_time_us": start_us.unwrap_or(0) });
        if let Some(asked) = &machine.metrics {
            if asked.emit_id {
                line["id"] = json!(id);
            }
            if !asked.properties.is_empty() {
                line["properties"] = json!(asked.properties);
            }
        }
        line.to_string() + "\n"
    }
}

/// What has been counted since then, name by name.
fn since(now: &Value, then: &Value) -> Value {
    match now {
        Value::Object(fields) => {
            let told = fields.iter().map(|(name, value)| {
                let before = then.get(name).unwrap_or(&Value::Null);
                (name.clone(), since(value, before))
            });
            Value::Object(told.collect())
        }
        value => {
            let number = value.as_u64().unwrap_or(0);
            json!(number.saturating_sub(then.as_u64().unwrap_or(0)))
        }
    }
}

fn counters(stats: &Stats, machine: &Machine) -> Value {
    let vm = &stats.vm;
    let sum = |of: fn(&kvmlet_spec::VcpuStats) -> u64| vm.vcpus.iter().map(of).sum::<u64>();
    let mut all = Map::new();
    all.insert(
        "vcpu".into(),
        json!({
            "exit_io_in": sum(|it| it.port_reads),
            "exit_io_out": sum(|it| it.port_writes),
            "exit_mmio_read": sum(|it| it.mmio_reads),
            "exit_mmio_write": sum(|it| it.mmio_writes),
        }),
    );
    let mut drives: Vec<_> = machine.drives.iter().collect();
    drives.sort_by_key(|drive| !drive.is_root_device);
    let mut blocks = Value::Null;
    for (drive, stats) in drives.iter().zip(&vm.disks) {
        let counted = block(stats);
        blocks = added(&counted, &blocks);
        all.insert(format!("block_{}", drive.drive_id), counted);
    }
    let mut nets = Value::Null;
    for (interface, stats) in machine.network_interfaces.iter().zip(&vm.interfaces) {
        let counted = net(stats);
        nets = added(&counted, &nets);
        all.insert(format!("net_{}", interface.iface_id), counted);
    }
    for (name, sums, none) in [
        ("block", blocks, block(&BlockStats::default())),
        ("net", nets, net(&NetStats::default())),
    ] {
        let counted = if sums.is_null() { none } else { sums };
        all.insert(name.into(), counted);
    }
    let entropy = vm.entropy.unwrap_or_default();
    all.insert(
        "entropy".into(),
        json!({
            "entropy_event_count": entropy.requests,
            "entropy_bytes": entropy.bytes,
            "entropy_rate_limiter_throttled": entropy.throttled,
        }),
    );
    let vsock = vm.vsock.unwrap_or_default();
    all.insert(
        "vsock".into(),
        json!({
            "conns_added": vsock.connections,
            "rx_packets_count": vsock.packets_to_guest,
            "rx_bytes_count": vsock.bytes_to_guest,
            "tx_packets_count": vsock.packets_from_guest,
            "tx_bytes_count": vsock.bytes_from_guest,
        }),
    );
    Value::Object(all)
}

fn block(stats: &BlockStats) -> Value {
    json!({
        "read_count": stats.reads,
        "write_count": stats.writes,
        "flush_count": stats.flushes,
        "read_bytes": stats.read_bytes,
        "write_bytes": stats.written_bytes,
        "execute_fails": stats.errors,
        "queue_event_count": stats.notifications,
        "rate_limiter_throttled_events": stats.throttled,
    })
}

fn net(stats: &NetStats) -> Value {
    let (receive, transmit) = (&stats.receive, &stats.transmit);
    json!({
        "rx_packets_count": receive.frames,
        "rx_bytes_count": receive.bytes,
        "rx_fails": receive.errors,
        "rx_rate_limiter_throttled": receive.throttled,
        "tx_packets_count": transmit.frames,
        "tx_bytes_count": transmit.bytes,
        "tx_fails": transmit.errors,
        "tx_rate_limiter_throttled": transmit.throttled,
    })
}

/// Two devices' counters as one's.
fn added(one: &Value, other: &Value) -> Value {
    let fields = one.as_object().into_iter().flatten().map(|(name, value)| {
        let more = other.get(name).and_then(Value::as_u64).unwrap_or(0);
        (name.clone(), json!(value.as_u64().unwrap_or(0) + more))
    });
    Value::Object(fields.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_tells_what_is_new() {
        let machine: Machine = serde_json::from_value(json!({
            "drives": [
                {"drive_id": "data", "path_on_host": "d", "is_root_device": false},
                {"drive_id": "root", "path_on_host": "r", "is_root_device": true},
            ],
        }))
        .unwrap();
        let mut stats = Stats::default();
        stats.vm.disks = vec![BlockStats::default(), BlockStats::default()];
        stats.vm.disks[0].reads = 5;
        stats.vm.disks[1].reads = 2;
        let mut told = Told::default();
        let mut mmds = Counted::default();
        (mmds.rx_accepted, mmds.tx_bytes) = (3, 100);
        let line: Value =
            serde_json::from_str(&told.line("vm-1", &stats, (&machine, mmds), Some(7))).unwrap();
        // The root is the first.
        assert_eq!(line["block_root"]["read_count"], 5);
        assert_eq!(line["block"]["read_count"], 7);
        assert_eq!(line["net"]["rx_fails"], 0);
        assert_eq!(line["mmds"]["rx_accepted"], 3);
        assert_eq!(line["mmds"]["connections_created"], 0);
        mmds.rx_accepted = 4;
        assert_eq!(line["api_server"]["process_startup_time_us"], 7);
        stats.vm.disks[1].reads = 3;
        let line: Value =
            serde_json::from_str(&told.line("vm-1", &stats, (&machine, mmds), None)).unwrap();
        assert_eq!(line["block"]["read_count"], 1);
        assert_eq!(line["block_root"]["read_count"], 0);
        assert_eq!(
            (&line["mmds"]["rx_accepted"], &line["mmds"]["tx_bytes"]),
            (&json!(1), &json!(0))
        );
        assert!(line["utc_timestamp_ms"].as_u64().unwrap() > 1_600_000_000_000);
    }
}
