//! runc, the OCI runtime in Go that docker and containerd use.

use super::oci::Runtime;
use crate::workshop::Programs;

/// `runc run`, with a cgroup for the container.
pub(super) fn with_cgroup(programs: &Programs) -> Runtime {
    let about = "runc run: namespaces, a cgroup, an OCI bundle";
    Runtime {
        install: "apt-get install runc (Debian, Ubuntu), dnf install runc (Fedora)",
        ..Runtime::new(programs, "runc", about, "runc")
    }
}
