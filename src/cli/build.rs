//! Makes the executable smaller by what is the linker's to do.

use std::env::var;
use std::process::Command;

fn main() {
    let link = |argument: &str| println!("cargo:rustc-link-arg-bins={argument}");
    println!("cargo:rerun-if-changed=src/cli/build.rs");
    println!("cargo:rerun-if-changed=src/cli/no_unwinding.ld");
    // A release aborts where it panics (Cargo.toml); others need not.
    if let (Ok("release"), Ok(root)) = (var("PROFILE").as_deref(), var("CARGO_MANIFEST_DIR")) {
        link(&format!("-T{root}/src/cli/no_unwinding.ld"));
    }
    if applies_packed_relocations() {
        link("-Wl,-z,pack-relative-relocs");
    }
}

/// A static executable moves itself to its random address, by code of the C library that it is linked with. From
/// glibc 2.36 and musl 1.2.4 on, which Rust has since 1.93, that knows the packed form of what there is to be done, a
/// hundredth of the usual one.
fn applies_packed_relocations() -> bool {
    let is =
        |name: &str, value: &str| var(name).is_ok_and(|it| it.split(',').any(|it| it == value));
    let is_native = var("HOST").is_ok() && var("HOST") == var("TARGET");
    let knows = match var("CARGO_CFG_TARGET_ENV").as_deref() {
        Ok("gnu") => is_native && glibc().is_some_and(|version| version >= (2, 36)),
        Ok("musl") => rust().is_some_and(|version| version >= (1, 93)),
        _ => false,
    };
    knows && is("CARGO_CFG_TARGET_FEATURE", "crt-static")
}

/// The version of this host's C library: `getconf` says `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    version(&String::from_utf8(output.ok()?.stdout).ok()?)
}

/// The compiler's version, which says `rustc 1.95.0 (...)`.
fn rust() -> Option<(u32, u32)> {
    let output = Command::new(var("RUSTC").ok()?).arg("--version").output();
    version(&String::from_utf8(output.ok()?.stdout).ok()?)
}

/// Of a program's name and version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
