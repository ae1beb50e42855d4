//! Statistics for who asks by the control socket: what the VM's process tells, looked at, and what the kernel says of it.

use kvmlet_spec::{HostStats, Stats, VcpuCount, VmStats};
use kvmlet_sys::{clock, cpu_time, process};
use rustix::process::Pid;

/// No VM has more to tell: as many commas and brackets as memory may be taken for.
const MOST_PARTS: usize = 8192;
/// No VM has more devices.
const MOST_DEVICES: usize = 64;

/// Statistics of a VM, by what its process has told last. Who has taken that over may have told anything: then none.
pub(super) fn of(told: &[u8], process: Pid) -> Option<Stats> {
    let parts = told
        .iter()
        .filter(|byte| matches!(byte, b',' | b'{' | b'['));
    if parts.count() > MOST_PARTS {
        return None;
    }
    let mut stats: Stats = serde_json::from_slice(told).ok()?;
    let VmStats {
        vcpus,
        disks,
        interfaces,
        ..
    } = &stats.vm;
    let can_be = vcpus.len() <= usize::from(VcpuCount::MAX)
        && disks.len().max(interfaces.len()) <= MOST_DEVICES;
    if !can_be {
        return None;
    }
    stats.host = Some(of_host(process, stats.vm.vcpus.len()));
    Some(stats)
}

fn of_host(process: Pid, vcpus: usize) -> HostStats {
    let mut host = HostStats::default();
    host.vcpu_cpu_us = vec![0; vcpus];
    for thread in cpu_time::of_threads(process.as_raw_nonzero().get().unsigned_abs()) {
        let number = thread.name.strip_prefix("vcpu");
        let vcpu =
            number.and_then(|number| host.vcpu_cpu_us.get_mut(number.parse::<usize>().ok()?));
        let us = u64::try_from(thread.cpu.as_micros()).unwrap_or(u64::MAX);
        let sum = vcpu.unwrap_or(&mut host.vmm_cpu_us);
        *sum = sum.saturating_add(us);
    }
    let supervisor = clock::process_cpu().as_micros();
    host.supervisor_cpu_us = u64::try_from(supervisor).unwrap_or(u64::MAX);
    host.resident_bytes = process::resident_bytes_with_children(std::process::id());
    host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_vm_tells_is_looked_at() {
        let this = rustix::process::getpid();
        let stats = of(br#"{"vcpus":[{"port_reads":7},{}],"unknown":[1,{}]}"#, this).unwrap();
        assert_eq!(stats.vm.vcpus[0].port_reads, 7);
        let host = stats.host.unwrap();
        assert_eq!(host.vcpu_cpu_us, [0, 0]);
        assert!(
            host.resident_bytes > 1 << 20 && host.supervisor_cpu_us > 0,
            "{host:?}"
        );
        for none in ["", "{", "[]x", r#"{"vcpus":7}"#] {
            assert!(of(none.as_bytes(), this).is_none(), "{none}");
        }
        // It would take more memory than a supervisor has.
        let many = format!(r#"{{"vcpus":[{}{{}}]}}"#, "{},".repeat(MOST_PARTS));
        assert!(of(many.as_bytes(), this).is_none());
    }
}
