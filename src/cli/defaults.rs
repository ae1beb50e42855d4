//! What plain `kvmlet boot` boots: the files that `kernels/build` and `images/build` leave in the cache.

use crate::host::kvm::Execution;
use std::path::PathBuf;

/// `$XDG_CACHE_HOME/kvmlet`, or `~/.cache/kvmlet` (XDG Base Directory Specification).
fn cache() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("kvmlet"))
}

/// The kernel of the flavour that this host can boot.
pub(super) fn kernel() -> Option<PathBuf> {
    let flavour = Execution::detect()
        .unwrap_or(Execution::Hardware)
        .kernel_flavour();
    Some(cache()?.join("kernels").join(flavour).join("vmlinux"))
}

/// An initramfs by the name that `images/build` knows it by.
pub(super) fn initrd(image: &str) -> Option<PathBuf> {
    Some(cache()?.join("images").join(format!("{image}.cpio")))
}

/// The programs that benchmarks start.
pub(super) fn bench() -> Option<PathBuf> {
    Some(cache()?.join("images").join("bench.dir"))
}
