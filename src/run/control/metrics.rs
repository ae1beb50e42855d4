//! Statistics as OpenMetrics text. All of it is numbers: nothing in it is a guest's own words.

use super::exposition::{Exposition, Kind, seconds};
use kvmlet_control::State;
use kvmlet_spec::{
    BlockStats, DirectionStats, GuestStatistics, HostStats, Stats, VcpuStats, VmStats,
};
use std::fmt::Display;

/// A name, and the count of that name.
type Count<'a> = (&'a str, u64);

/// What a VM is doing and has done so far.
pub(super) fn of(stats: &Stats, state: State) -> String {
    let mut out = Exposition::default();
    out.family(
        "kvmlet_state",
        Kind::Gauge,
        "What the VM is doing: 1 for that, 0 for the others.",
    );
    for each in State::ALL {
        out.sample(&[("state", &each.name())], u8::from(each == state));
    }
    if let Some(host) = &stats.host {
        of_host(&mut out, host);
    }
    of_memory(&mut out, &stats.vm);
    of_devices(&mut out, &stats.vm);
    out.finish()
}

fn of_host(out: &mut Exposition, host: &HostStats) {
    let vcpus = host.vcpu_cpu_us.iter().map(|us| seconds(*us));
    let help = "CPU time of a vCPU, with what handling its exits takes.";
    out.each(
        ("kvmlet_vcpu_cpu_seconds", "vcpu"),
        Kind::Counter,
        help,
        vcpus,
    );
    out.family(
        "kvmlet_vmm_cpu_seconds",
        Kind::Counter,
        "CPU time of what serves the VM.",
    )
    .sample(&[("part", &"devices")], seconds(host.vmm_cpu_us))
    .sample(&[("part", &"supervisor")], seconds(host.supervisor_cpu_us));
    out.one(
        "kvmlet_host_resident_bytes",
        Kind::Gauge,
        "Memory of the host that the VM's processes use, guest RAM among it.",
        Some(host.resident_bytes),
    );
}

fn of_memory(out: &mut Exposition, vm: &VmStats) {
    let memory = &vm.memory;
    let help = "Guest RAM.";
    out.one("kvmlet_memory_bytes", Kind::Gauge, help, Some(memory.bytes));
    let help = "Guest RAM that is in the host's memory.";
    out.one(
        "kvmlet_memory_resident_bytes",
        Kind::Gauge,
        help,
        memory.resident_bytes,
    );
    let Some(balloon) = &vm.balloon else {
        return;
    };
    let help = "Memory that the balloon holds.";
    out.one(
        "kvmlet_balloon_bytes",
        Kind::Gauge,
        help,
        Some(balloon.actual_bytes),
    );
    let guest = balloon.guest.unwrap_or_default();
    let GuestStatistics {
        free_bytes,
        total_bytes,
        available_bytes,
        cache_bytes,
        ..
    } = guest;
    let parts = [
        ("total", total_bytes),
        ("free", free_bytes),
        ("available", available_bytes),
        ("cache", cache_bytes),
    ];
    let mut parts = parts
        .into_iter()
        .filter_map(|(part, bytes)| Some((part, bytes?)))
        .peekable();
    if parts.peek().is_some() {
        out.family(
            "kvmlet_guest_memory_bytes",
            Kind::Gauge,
            "Memory as the guest counts it.",
        );
    }
    for (part, bytes) in parts {
        out.sample(&[("part", &part)], bytes);
    }
    out.one(
        "kvmlet_guest_oom_kills",
        Kind::Counter,
        "Processes killed for want of memory.",
        guest.oom_kills,
    );
}

fn of_devices(out: &mut Exposition, vm: &VmStats) {
    table(
        out,
        ("kvmlet_vcpu_exits", "vcpu", "kind"),
        "Exits to user space.",
        &vm.vcpus,
        exits,
    );
    let help = "Requests of a disk that succeeded.";
    table(
        out,
        ("kvmlet_disk_requests", "disk", "kind"),
        help,
        &vm.disks,
        requests,
    );
    let help = "Bytes that the guest has read and written.";
    table(
        out,
        ("kvmlet_disk_bytes", "disk", "direction"),
        help,
        &vm.disks,
        |disk| vec![("read", disk.read_bytes), ("written", disk.written_bytes)],
    );
    let help = "Requests of a disk that were answered with an error.";
    let errors = vm.disks.iter().map(|disk| disk.errors);
    out.each(("kvmlet_disk_errors", "disk"), Kind::Counter, help, errors);
    for (name, help, count) in DIRECTIONS {
        table(
            out,
            (name, "interface", "direction"),
            help,
            &vm.interfaces,
            |net| {
                vec![
                    ("receive", count(&net.receive)),
                    ("transmit", count(&net.transmit)),
                ]
            },
        );
    }
    if let Some(vsock) = &vm.vsock {
        let help = "Connections between guest and host.";
        out.one(
            "kvmlet_vsock_connections",
            Kind::Gauge,
            help,
            Some(vsock.connections),
        );
        out.family(
            "kvmlet_vsock_bytes",
            Kind::Counter,
            "Data between guest and host.",
        )
        .sample(&[("direction", &"from_guest")], vsock.bytes_from_guest)
        .sample(&[("direction", &"to_guest")], vsock.bytes_to_guest);
    }
}

/// A name, what it is, and how it is counted.
type OfDirection = (&'static str, &'static str, fn(&DirectionStats) -> u64);

const DIRECTIONS: [OfDirection; 4] = [
    (
        "kvmlet_net_bytes",
        "Bytes of frames, seen from the guest.",
        |it| it.bytes,
    ),
    ("kvmlet_net_frames", "Frames, seen from the guest.", |it| {
        it.frames
    }),
    ("kvmlet_net_drops", "Frames that found no room.", |it| {
        it.drops
    }),
    (
        "kvmlet_net_errors",
        "Frames that were malformed or refused.",
        |it| it.errors,
    ),
];

fn exits(vcpu: &VcpuStats) -> Vec<Count<'static>> {
    vec![
        ("port_read", vcpu.port_reads),
        ("port_write", vcpu.port_writes),
        ("mmio_read", vcpu.mmio_reads),
        ("mmio_write", vcpu.mmio_writes),
        ("kick", vcpu.kicks),
    ]
}

fn requests(disk: &BlockStats) -> Vec<Count<'static>> {
    vec![
        ("read", disk.reads),
        ("write", disk.writes),
        ("flush", disk.flushes),
        ("discard", disk.discards),
        ("write_zeroes", disk.write_zeroes),
    ]
}

/// Some counts of each of a list.
fn table<T>(
    out: &mut Exposition,
    (name, label, by): (&'static str, &str, &str),
    help: &str,
    list: &[T],
    counts: impl Fn(&T) -> Vec<Count<'static>>,
) {
    if !list.is_empty() {
        out.family(name, Kind::Counter, help);
    }
    for (number, one) in list.iter().enumerate() {
        for (kind, count) in counts(one) {
            let labels: [(&str, &dyn Display); 2] = [(label, &number), (by, &kind)];
            out.sample(&labels, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn text() -> String {
        let json = r#"{"vcpus":[{"port_reads":3},{}],"disks":[{"read_bytes":4096}],"interfaces":[{"receive":{"bytes":60}}],
            "memory":{"bytes":1024},"vsock":{"connections":2},
            "host":{"vcpu_cpu_us":[1500000,0],"vmm_cpu_us":10,"resident_bytes":5},
            "balloon":{"actual_bytes":1,"guest":{"free_bytes":9}}}"#;
        of(&serde_json::from_str(json).unwrap(), State::Paused)
    }

    #[test]
    fn numbers_are_where_scrapers_find_them() {
        let text = text();
        for line in [
            "kvmlet_state{state=\"paused\"} 1",
            "kvmlet_state{state=\"running\"} 0",
            "kvmlet_vcpu_cpu_seconds_total{vcpu=\"0\"} 1.500000",
            "kvmlet_vmm_cpu_seconds_total{part=\"devices\"} 0.000010",
            "kvmlet_vcpu_exits_total{vcpu=\"0\",kind=\"port_read\"} 3",
            "kvmlet_disk_bytes_total{disk=\"0\",direction=\"read\"} 4096",
            "kvmlet_net_bytes_total{interface=\"0\",direction=\"receive\"} 60",
            "kvmlet_memory_bytes 1024",
            "kvmlet_host_resident_bytes 5",
            "kvmlet_guest_memory_bytes{part=\"free\"} 9",
            "kvmlet_vsock_connections 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    /// Each family once, its samples behind it, and the end where it is to be.
    #[test]
    fn the_format_is_kept() {
        let text = text();
        let (mut seen, mut family) = (BTreeSet::new(), String::new());
        for line in text.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(rest) => {
                    family = rest.split(' ').next().unwrap().into();
                    assert!(seen.insert(family.clone()), "{family} twice");
                }
                None if line.starts_with('#') => {
                    assert!(
                        line == "# EOF" || line.split(' ').nth(2) == Some(&family),
                        "{line}"
                    );
                }
                None => assert!(line.starts_with(&family), "{line} in {family}"),
            }
        }
        assert!(text.ends_with("\n# EOF\n"));
    }
}
