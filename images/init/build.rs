//! How `kvmlet-init` is linked: it brings its own entry point, needs no C library, and is loaded
//! where it was linked, so that no relocation touches (and copies) a page at its start.

use std::env::var;

/// Leaves out tables for unwinding the stack, which is of no use to who aborts: a twelfth of what each guest has of it.
const NO_UNWINDING: &str = "no_unwinding.ld";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={NO_UNWINDING}");
    if let (Ok("release"), Ok(place)) = (var("PROFILE").as_deref(), var("CARGO_MANIFEST_DIR")) {
        println!("cargo:rustc-link-arg-bin=kvmlet-init=-T{place}/{NO_UNWINDING}");
    }
    for argument in [
        "-nostartfiles",
        "-static",
        "-no-pie",
        // One read-only segment instead of two, and no padding between segments: fewer pages.
        "-Wl,-z,noseparate-code",
        "-Wl,-z,norelro",
        "-Wl,--build-id=none",
    ] {
        println!("cargo:rustc-link-arg-bin=kvmlet-init={argument}");
    }
}
