//! runc, the OCI runtime in Go that docker and containerd use.

use super::oci::Runtime;
use crate::workshop::Programs;
use kvmlet_spec::CpuQuota;

const INSTALL: &str = "apt-get install runc (Debian, Ubuntu), dnf install runc (Fedora)";

/// `runc run`, with a cgroup for the container.
pub(super) fn with_cgroup(programs: &Programs) -> Runtime {
    let about = "runc run: namespaces, a cgroup, an OCI bundle";
    Runtime {
        install: INSTALL,
        ..Runtime::new(programs, "runc", about, "runc")
    }
}

/// The same with a share of CPUs.
pub(super) fn with_share(programs: &Programs, quota: CpuQuota) -> Runtime {
    let about = "runc run with a share of CPUs";
    Runtime {
        install: INSTALL,
        share: Some(quota),
        ..Runtime::new(programs, "runc-quota", about, "runc")
    }
}
