//! What plain `kvmlet boot` boots: the files that `kernels/build` and `images/build` leave in the cache.

use kvmlet_sys::environment;
use kvmlet_sys::kvm::Execution;
use std::path::PathBuf;

/// `$XDG_CACHE_HOME/kvmlet`, or `~/.cache/kvmlet` (XDG Base Directory Specification).
fn cache() -> Option<PathBuf> {
    let absolute = |path: Option<PathBuf>| path.filter(|path| path.is_absolute());
    let named = environment::variable("XDG_CACHE_HOME").map(PathBuf::from);
    let base = absolute(named).or_else(|| Some(absolute(environment::home())?.join(".cache")))?;
    Some(base.join("kvmlet"))
}

/// The kernel of the flavour that this host can boot.
pub fn kernel() -> Option<PathBuf> {
    let flavour = Execution::detect()
        .unwrap_or(Execution::Hardware)
        .kernel_flavour();
    Some(cache()?.join("kernels").join(flavour).join("vmlinux"))
}

/// An initramfs by the name that `images/build` knows it by.
pub fn initrd(image: &str) -> Option<PathBuf> {
    Some(cache()?.join("images").join(format!("{image}.cpio")))
}

/// The programs that benchmarks start.
pub fn bench() -> Option<PathBuf> {
    Some(cache()?.join("images").join("bench.dir"))
}
