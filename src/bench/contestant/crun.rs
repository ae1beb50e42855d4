//! crun, the OCI runtime in C.

use super::oci::Runtime;
use crate::workshop::Programs;
use kvmlet_spec::CpuQuota;

const INSTALL: &str = "apt-get install crun (Debian, Ubuntu), dnf install crun (Fedora)";

/// `crun run`, with a cgroup for the container.
pub(super) fn with_cgroup(programs: &Programs) -> Runtime {
    let about = "crun run: namespaces, a cgroup, an OCI bundle";
    Runtime {
        install: INSTALL,
        ..Runtime::new(programs, "crun", about, "crun")
    }
}

/// The same with a share of CPUs.
pub(super) fn with_share(programs: &Programs, quota: CpuQuota) -> Runtime {
    let about = "crun run with a share of CPUs";
    Runtime {
        install: INSTALL,
        share: Some(quota),
        ..Runtime::new(programs, "crun-quota", about, "crun")
    }
}

/// Without a cgroup: what is left is namespaces and mounts.
pub(super) fn without_cgroup(programs: &Programs) -> Runtime {
    let about = "crun run without a cgroup: namespaces, an OCI bundle";
    Runtime {
        install: INSTALL,
        options: &["--cgroup-manager", "disabled"],
        ..Runtime::new(programs, "crun-nocgroup", about, "crun")
    }
}
