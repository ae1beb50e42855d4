//! What VMs can be held to, and what is promised to them.

use super::{Finding, error, ok, warning};
use kvmlet_host::shares::cgroup::{Controller, Hierarchies};
use kvmlet_host::shares::ledger::{Host, Ledger};
use kvmlet_host::state::runtime::RuntimeDirectory;
use kvmlet_spec::thousandths;

/// What VMs can be held to.
pub fn quotas() -> Vec<Finding> {
    let hierarchies = match Hierarchies::find() {
        Ok(found) => found,
        Err(cause) => return vec![warning("quotas", cause.to_string(), "mount /proc")],
    };
    let finding = |controller: Controller| {
        let name = match controller {
            Controller::Cpu => "CPU quota",
            Controller::Cpuset => "CPU set",
            Controller::Memory => "memory limit",
        };
        match hierarchies.offer(controller) {
            Ok(place) => ok(name, place),
            Err(cause) => warning(
                name,
                cause.to_string(),
                cause.help().unwrap_or_else(|| "".into()),
            ),
        }
    };
    let mut findings: Vec<Finding> = Controller::ALL.into_iter().map(finding).collect();
    let same_way_out = |pair: &[Finding]| pair[0].help.is_some() && pair[0].help == pair[1].help;
    if findings.windows(2).all(same_way_out) {
        // No controller is to blame, but where kvmlet runs.
        findings.truncate(1);
        findings[0].name = "shares";
    }
    findings
}

/// What is left for new VMs.
pub fn promises() -> Finding {
    let runtime = match RuntimeDirectory::of_user() {
        Ok(runtime) => runtime,
        // No VM starts without.
        Err(cause) => return error("notes", cause.to_string(), cause.help()),
    };
    let examine = || {
        let host = Host::here()?;
        let mut ledger = Ledger::lock(&runtime)?;
        let promises = ledger.promises()?;
        let milli = promises.clone().map(|p| u64::from(p.cpu_milli)).sum();
        let bytes: u64 = promises.clone().map(|p| p.memory_bytes).sum();
        Ok(format!(
            "{} of {} CPUs and {} of {} MiB are promised to running VMs ({})",
            thousandths(milli),
            host.cpus.len(),
            bytes.div_ceil(1 << 20),
            host.memory_bytes >> 20,
            promises.len()
        ))
    };
    match examine() {
        Ok(text) => ok("promises", text),
        Err::<_, kvmlet_host::shares::ledger::Error>(cause) => {
            let help = cause.help();
            let help = help.unwrap_or_else(|| "make the directory usable".into());
            warning("promises", cause.to_string(), help)
        }
    }
}
