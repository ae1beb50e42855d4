//! What a reader has to know of the host, to know what figures are worth.

use kvmlet_host::shares::cgroup::Hierarchies;
use kvmlet_sys::kvm::{self, Execution};
use serde::Serialize;
use std::fs;

/// Facts about the host, as they were when the benchmark began.
#[derive(Clone, Debug, Serialize)]
pub struct HostFacts {
    /// Name and release of the kernel.
    pub kernel: String,
    /// Model of the processor.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// How KVM runs guest kernels: `hardware`, `interpreted`, or `absent`.
    pub kvm: &'static str,
    /// Version of the cgroup hierarchy that has the controllers: 0 if there is none.
    pub cgroup_version: u8,
    /// Load average over the last minute.
    pub load: f64,
}

impl HostFacts {
    /// Asks the host.
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
            cpu: cpu_model(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kvmlet_host::total_memory_bytes(),
            kvm: match (kvm::open(), Execution::detect()) {
                (Err(_), _) => "absent",
                (Ok(_), Ok(Execution::Interpreted)) => "interpreted",
                (Ok(_), _) => "hardware",
            },
            cgroup_version: Hierarchies::find().map_or(0, |found| found.version()),
            load: load
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or(0.0),
        }
    }

    /// What makes figures of this host special, or doubtful.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.kvm == "interpreted" {
            warnings.push(
                "The KVM of this host interprets guest kernel code. Times of Linux guests do not transfer to hosts with \
                 VT-x or SVM, where guest kernels run about a thousand times faster; exits and CPU time of the VMM do."
                    .into(),
            );
        }
        if self.load > self.cpus as f64 / 4.0 {
            warnings.push(format!(
                "The machine was busy when the benchmark began: load {:.2} on {} CPUs. Times are too long and vary.",
                self.load, self.cpus
            ));
        }
        if !rustix::process::geteuid().is_root() {
            warnings.push(
                "Not run as root: container runtimes may fail, or do less than they do for root."
                    .into(),
            );
        }
        warnings
    }
}

fn cpu_model(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':'))
        .map_or("unknown", |(_, name)| name.trim())
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(kvm: &'static str, load: f64) -> HostFacts {
        HostFacts {
            kvm,
            load,
            cpus: 4,
            ..HostFacts::read()
        }
    }

    #[test]
    fn an_interpreting_kvm_and_a_busy_machine_are_warned_of() {
        let busy = idle("interpreted", 3.5).warnings();
        assert!(busy[0].contains("do not transfer"), "{busy:?}");
        assert!(busy[1].contains("load 3.50 on 4 CPUs"), "{busy:?}");
        assert!(
            idle("hardware", 0.1)
                .warnings()
                .iter()
                .all(|text| text.contains("root"))
        );
    }

    #[test]
    fn the_cpu_has_a_name() {
        assert_eq!(
            cpu_model("processor: 0\nmodel name\t: Some CPU @ 2 GHz\n"),
            "Some CPU @ 2 GHz"
        );
        assert_eq!(cpu_model(""), "unknown");
    }
}
