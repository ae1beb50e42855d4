//! How `kvmlet-init` is linked: it brings its own entry point, needs no C library, and is loaded
//! where it was linked, so that no relocation touches (and copies) a page at its start.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
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
