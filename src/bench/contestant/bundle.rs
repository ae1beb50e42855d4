//! An OCI bundle (OCI Runtime Specification 1.0, "Filesystem Bundle") with nothing but the service in it.

use super::Service;
use kvmlet_spec::CpuQuota;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Makes the root file system that all bundles share, and returns its path.
pub(super) fn make_root(directory: &Path, service: &Path) -> io::Result<PathBuf> {
    let root = directory.join("rootfs");
    // Mount points, for a root that is read-only.
    for name in ["proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::copy(service, root.join("ready"))?;
    Ok(root)
}

/// Makes the bundle of one container with the cgroup of that path.
pub(super) fn write(
    bundle: &Path,
    root: &Path,
    cgroup: &str,
    (service, share): (Service, Option<CpuQuota>),
) -> io::Result<()> {
    fs::create_dir_all(bundle)?;
    let mut config = config(root, cgroup, service);
    if let Some(share) = share {
        let quota = u64::from(share.milli()) * CpuQuota::PERIOD_US / 1000;
        config["linux"]["resources"]["cpu"] =
            json!({"quota": quota, "period": CpuQuota::PERIOD_US});
    }
    fs::write(bundle.join("config.json"), config.to_string())
}

/// What `runc spec` and `crun spec` ask for as well: all namespaces, /proc, /dev with its usual mounts, /sys, masked
/// paths, few capabilities; and a cgroup of the container's own.
fn config(root: &Path, cgroup: &str, service: Service) -> Value {
    let mut args = vec!["/ready"];
    if service == Service::Stays {
        args.push("stay");
    }
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    json!({
        "ociVersion": "1.0.0",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        },
        "root": {"path": root, "readonly": true},
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
