//! What plain `kvmlet boot` boots: the files that `kernels/build` and `images/build` leave in the cache, the user's own or, where
//! that has none, the host's.

use kvmlet_sys::environment;
use kvmlet_sys::kvm::Execution;
use std::path::{Path, PathBuf};

/// What root has built for all users: `XDG_CACHE_HOME=/var/cache kernels/build`.
const OF_HOST: &str = "/var/cache/kvmlet";

/// `$XDG_CACHE_HOME/kvmlet`, or `~/.cache/kvmlet` (XDG Base Directory Specification).
fn cache() -> Option<PathBuf> {
    let absolute = |path: Option<PathBuf>| path.filter(|path| path.is_absolute());
    let named = environment::variable("XDG_CACHE_HOME").map(PathBuf::from);
    let base = absolute(named).or_else(|| Some(absolute(environment::home())?.join(".cache")))?;
    Some(base.join("kvmlet"))
}

/// The kernel of the flavour that this host can boot.
pub fn kernel() -> PathBuf {
    let flavour = Execution::detect()
        .unwrap_or(Execution::Hardware)
        .kernel_flavour();
    find(&format!("kernels/{flavour}/vmlinux"))
}

/// An initramfs by the name that `images/build` knows it by.
pub fn initrd(image: &str) -> PathBuf {
    find(&format!("images/{image}.cpio"))
}

/// The programs that benchmarks start.
pub fn bench() -> PathBuf {
    find("images/bench.dir")
}

fn find(name: &str) -> PathBuf {
    first_of(cache().as_deref(), Path::new(OF_HOST), name)
}

/// The user's own; the host's if only that is there; where the user's own would be if neither is.
fn first_of(own: Option<&Path>, of_host: &Path, name: &str) -> PathBuf {
    let of_host = of_host.join(name);
    match own.map(|own| own.join(name)) {
        Some(own) if own.exists() || !of_host.exists() => own,
        _ => of_host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_is_taken_where_the_user_has_none() {
        let (own, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let found = |own: Option<&Path>| first_of(own, host.path(), "init.cpio");
        let (own, name) = (own.path(), Path::new("init.cpio"));
        // None is there: what is to be built is the user's.
        assert_eq!(found(Some(own)), own.join(name));
        assert_eq!(found(None), host.path().join(name));
        std::fs::write(host.path().join(name), "").unwrap();
        assert_eq!(found(Some(own)), host.path().join(name));
        std::fs::write(own.join(name), "").unwrap();
        assert_eq!(found(Some(own)), own.join(name));
        assert_eq!(found(None), host.path().join(name));
    }
}
