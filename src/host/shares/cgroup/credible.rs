//! What of a note is believed: who is killed and what is removed by it is a cgroup that kvmlet made for that VM.

use super::PREFIX;
use rustix::fs::statfs;
use std::path::{Component, Path, PathBuf};

/// CGROUP_SUPER_MAGIC and CGROUP2_SUPER_MAGIC (linux/magic.h).
const FILE_SYSTEMS: [u64; 2] = [0x0027_e0eb, 0x6367_7270];

/// Is this a cgroup, or one in it, that is named after the VM with this [name](super::unique_name)?
pub fn is_cgroup_of(path: &Path, name: &str) -> bool {
    name.starts_with(PREFIX) && is_named_after(path, name) && is_cgroup(path)
}

/// Is this a cgroup around one of those that are named after the VM with this name? It is removed when it is empty.
pub fn is_cgroup_around(path: &Path, cgroups: &[PathBuf], name: &str) -> bool {
    let is_inner = |inner: &PathBuf| inner.starts_with(path) && is_named_after(inner, name);
    cgroups.iter().any(is_inner) && is_cgroup(path)
}

/// What kvmlet makes for a VM has the VM's name, or begins with it and a dash.
fn is_named_after(path: &Path, name: &str) -> bool {
    let mut parts = path.components();
    if parts.next() != Some(Component::RootDir) {
        return false;
    }
    let mut named = false;
    for part in parts {
        let Component::Normal(part) = part else {
            return false;
        };
        let rest = part.to_str().and_then(|part| part.strip_prefix(name));
        named |= rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    }
    named
}

fn is_cgroup(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| FILE_SYSTEMS.contains(&(found.f_type as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_vms_are_named_after_them() {
        let named = |path: &str| is_named_after(Path::new(path), "kvmlet-7-ab");
        assert!(named("/sys/fs/cgroup/cpu/kvmlet-7-ab"));
        assert!(named("/sys/fs/cgroup/a/kvmlet-7-ab/vcpus"));
        assert!(named("/sys/fs/cgroup/a/kvmlet-7-ab-supervisor"));
        for path in [
            "/sys/fs/cgroup/cpu/kvmlet-7-abc",
            "/sys/fs/cgroup/cpu/kvmlet-8-ab",
            "/sys/fs/cgroup/cpu",
            "/sys/fs/cgroup/kvmlet-7-ab/../docker",
            "kvmlet-7-ab",
            "",
        ] {
            assert!(!named(path), "{path}");
        }
        let around = |path: &str, inner: &str| {
            is_cgroup_around(Path::new(path), &[PathBuf::from(inner)], "kvmlet-7-ab")
        };
        let inner = "/sys/fs/cgroup/kvmlet/kvmlet-7-ab";
        assert_eq!(
            around("/sys/fs/cgroup", inner),
            is_cgroup(Path::new("/sys/fs/cgroup"))
        );
        assert!(!around(
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/kvmlet/kvmlet-8-ab"
        ));
        assert!(!around("/sys", "/proc/kvmlet-7-ab"));
        assert!(!around("/", "/kvmlet-7-ab"), "it is not a cgroup");
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("kvmlet-7-ab");
        std::fs::create_dir(&path).unwrap();
        assert!(!is_cgroup_of(&path, "kvmlet-7-ab"), "it is not a cgroup");
        assert!(!is_cgroup(Path::new("/sys/fs/cgroup/nowhere")));
    }
}
