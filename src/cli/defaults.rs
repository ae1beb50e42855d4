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

/// The minimal root as an initrd.
pub(super) fn initrd() -> Option<PathBuf> {
    Some(cache()?.join("images").join("minimal.cpio"))
}
