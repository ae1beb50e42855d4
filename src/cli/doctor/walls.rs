//! What keeps a VM's process from the rest of the host.

use super::{Finding, ok, warning};
use kvmlet_host::walls::jail::{self, Missing, Wall};
use kvmlet_sys::seccomp;

/// The walls that this host lacks.
pub fn jail() -> Vec<Finding> {
    let missing = match jail::survey() {
        Ok(missing) => missing,
        Err(cause) => {
            let text = format!("no process can be confined: {cause}");
            return vec![warning("jail", text, "see `ulimit -u` and `dmesg`")];
        }
    };
    let seccomp = seccomp::check_support().err().map(|source| Missing {
        wall: Wall::Seccomp,
        source,
    });
    let mut findings: Vec<Finding> = (missing.iter().chain(&seccomp))
        .map(|missing| {
            let text = format!("{missing}: {}", missing.source);
            warning("jail", text, missing.help())
        })
        .collect();
    if findings.is_empty() {
        let text = "VMs are confined by namespaces, an empty root, a user of their own without capabilities, \
                    seccomp and Landlock";
        findings.push(ok("jail", text));
    }
    findings
}
