//! An instance as `kvmlet stats` shows it: docker's fields, and those of a VM.

use kvmlet_command::shown::{binary, decimal};
use kvmlet_manager::View;
use kvmlet_spec::{Stats, VcpuStats};
use serde_json::{Value, json};
use std::time::Instant;

/// What an instance had done at some point in time.
pub(super) struct Sample {
    pub at: Instant,
    pub stats: Stats,
}

/// What it uses, by two looks at it. What is not known is `--`.
pub(super) fn row(
    view: &View,
    before: Option<&Sample>,
    now: Option<&Sample>,
    whole: bool,
) -> Value {
    let id = match whole {
        true => view.id.as_str(),
        false => view.id.short(),
    };
    let of = |tell: &dyn Fn(&Stats) -> Option<String>| -> String {
        now.and_then(|now| tell(&now.stats))
            .unwrap_or_else(|| UNKNOWN.into())
    };
    let share = |us: fn(&Stats) -> Option<u64>| match (before, now) {
        (Some(before), Some(now)) => percent(before, now, us),
        _ => UNKNOWN.into(),
    };
    json!({
        "ID": id,
        "Name": view.called(),
        "Container": view.id.as_str(),
        "CPUPerc": share(|stats| Some(vcpus(stats)?.saturating_add(vmm(stats)?))),
        "VCPUPerc": share(vcpus),
        "VMMPerc": share(vmm),
        "MemUsage": of(&|stats| Some(format!("{} / {}", binary(used(stats)?), binary(stats.vm.memory.bytes)))),
        "MemPerc": of(&|stats| Some(parts(used(stats)?, stats.vm.memory.bytes))),
        "HostMem": of(&|stats| Some(binary(stats.host.as_ref()?.resident_bytes))),
        "NetIO": of(&|stats| {
            let nets = &stats.vm.interfaces;
            let receive: u64 = nets.iter().map(|net| net.receive.bytes).sum();
            let transmit: u64 = nets.iter().map(|net| net.transmit.bytes).sum();
            Some(format!("{} / {}", decimal(receive), decimal(transmit)))
        }),
        "BlockIO": of(&|stats| {
            let disks = &stats.vm.disks;
            let read: u64 = disks.iter().map(|disk| disk.read_bytes).sum();
            let written: u64 = disks.iter().map(|disk| disk.written_bytes).sum();
            Some(format!("{} / {}", decimal(read), decimal(written)))
        }),
        "Exits": of(&|stats| {
            let exits: u64 = stats.vm.vcpus.iter().map(VcpuStats::exits).sum();
            Some(exits.to_string())
        }),
    })
}

const UNKNOWN: &str = "--";

/// The names of columns.
pub(super) fn heading(field: &str) -> String {
    match field {
        "ID" => "INSTANCE ID",
        "CPUPerc" => "CPU %",
        "VCPUPerc" => "VCPU %",
        "VMMPerc" => "VMM %",
        "MemUsage" => "MEM USAGE / LIMIT",
        "MemPerc" => "MEM %",
        "HostMem" => "HOST MEM",
        "NetIO" => "NET I/O",
        "BlockIO" => "BLOCK I/O",
        other => return other.to_uppercase(),
    }
    .into()
}

fn vcpus(stats: &Stats) -> Option<u64> {
    let host = stats.host.as_ref()?;
    Some(
        host.vcpu_cpu_us
            .iter()
            .fold(0, |sum: u64, us| sum.saturating_add(*us)),
    )
}

fn vmm(stats: &Stats) -> Option<u64> {
    let host = stats.host.as_ref()?;
    Some(host.vmm_cpu_us.saturating_add(host.supervisor_cpu_us))
}

/// Memory that the guest uses: what it says itself, or else what it has touched.
fn used(stats: &Stats) -> Option<u64> {
    let guest = stats.vm.balloon.as_ref().and_then(|balloon| balloon.guest);
    let told = guest.and_then(|guest| guest.total_bytes?.checked_sub(guest.available_bytes?));
    told.or(stats.vm.memory.resident_bytes)
}

/// A share of one CPU between two looks. It was started anew meanwhile if it has used less.
fn percent(before: &Sample, now: &Sample, us: fn(&Stats) -> Option<u64>) -> String {
    let time = now.at.saturating_duration_since(before.at).as_secs_f64();
    let used = us(&now.stats).zip(us(&before.stats));
    match used.and_then(|(now, before)| now.checked_sub(before)) {
        Some(used) if time > 0.0 => format!("{:.2}%", used as f64 / 1e4 / time),
        _ => UNKNOWN.into(),
    }
}

fn parts(some: u64, all: u64) -> String {
    match all {
        0 => UNKNOWN.into(),
        all => format!("{:.2}%", some as f64 * 100.0 / all as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmlet_manager::{Asked, Book, InstanceId};
    use std::time::Duration;

    #[test]
    fn sizes_are_told_in_units() {
        for (bytes, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (1536, "1.50KiB"),
            (64 << 20, "64.0MiB"),
            (3 << 40, "3.00TiB"),
        ] {
            assert_eq!(binary(bytes), expected);
        }
        for (bytes, expected) in [(999, "999B"), (1200, "1.20kB"), (123_456_789, "123MB")] {
            assert_eq!(decimal(bytes), expected);
        }
    }

    #[test]
    fn shares_are_of_the_time_between_two_looks() {
        let place = tempfile::tempdir().unwrap();
        let book = Book::at(&place.path().join("book")).unwrap();
        let asked = Asked::new(InstanceId::random().unwrap(), "image");
        let (instance, name) = book.create(None, asked).unwrap();
        let view = instance.view(Some(name)).unwrap();
        let sample = |at, json: &str| Sample {
            at,
            stats: serde_json::from_str(json).unwrap(),
        };
        let start = Instant::now();
        let before = sample(
            start,
            r#"{"host":{"vcpu_cpu_us":[0,1000000],"vmm_cpu_us":0}}"#,
        );
        let now = sample(
            start + Duration::from_secs(2),
            r#"{"host":{"vcpu_cpu_us":[2000000,2000000],"vmm_cpu_us":100000,"supervisor_cpu_us":100000,"resident_bytes":1048576},
                "memory":{"bytes":2048,"resident_bytes":512},"interfaces":[{"receive":{"bytes":1000}}],
                "vcpus":[{"kicks":3},{"port_reads":4}]}"#,
        );
        let shown = row(&view, Some(&before), Some(&now), false);
        for (field, expected) in [
            ("VCPUPerc", "150.00%"),
            ("VMMPerc", "10.00%"),
            ("CPUPerc", "160.00%"),
            ("MemUsage", "512B / 2.00KiB"),
            ("MemPerc", "25.00%"),
            ("HostMem", "1.00MiB"),
            ("NetIO", "1.00kB / 0B"),
            ("BlockIO", "0B / 0B"),
            ("Exits", "7"),
        ] {
            assert_eq!(shown[field], expected, "{field}");
        }
        let ended = row(&view, Some(&before), None, false);
        assert_eq!(
            (&ended["CPUPerc"], &ended["Exits"]),
            (&json!("--"), &json!("--"))
        );
    }
}
