//! The initramfs: this executable as the first process, and the modules that it takes to get at all others.

use crate::wire::{SETTINGS, Settings};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

/// What brings up the port, the disk and the root file system; all else is loaded from there.
const EARLY_MODULES: [&str; 7] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
    "ext4",
];
/// Found by name, not by a symbol: what ext4 computes checksums with.
const CHECKSUMS: &str = "crc32c_generic";
/// This executable as the first process, the modules that it loads first, and what it has to know.
pub fn initramfs(kernel: &Path) -> io::Result<Vec<u8>> {
    let mut releases = fs::read_dir(kernel.join("modules"))?;
    let all_modules = releases.next().ok_or(io::ErrorKind::NotFound)??.path();
    let mut archive = Archive::default();
    archive.file("init", 0o755, &fs::read(std::env::current_exe()?)?);
    archive.node("console", 5, 1);
    let mut modules = Vec::new();
    for module in early_modules(&all_modules)? {
        let name = module.rsplit('/').next().unwrap_or(&module).to_owned();
        archive.file(&name, 0o644, &fs::read(all_modules.join(&module))?);
        modules.push(format!("/{name}"));
    }
    let release = all_modules.file_name().unwrap_or_default();
    let settings = Settings {
        modules,
        release: release.to_string_lossy().into_owned(),
        all_modules: all_modules.to_string_lossy().into_owned(),
    };
    archive.file(SETTINGS, 0o644, &serde_json::to_vec(&settings)?);
    Ok(archive.finish())
}

/// Files of the modules to be loaded first, each behind those that it needs (modules.dep(5)).
fn early_modules(all: &Path) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(all.join("modules.dep"))?;
    let name = |file: &str| {
        let file = file.rsplit('/').next().unwrap_or(file);
        file.split('.').next().unwrap_or(file).replace('-', "_")
    };
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let needs: HashMap<String, (&str, &str)> = lines
        .map(|(file, needs)| (name(file), (file, needs)))
        .collect();
    let mut order: Vec<String> = Vec::new();
    for module in EARLY_MODULES.iter().chain([&CHECKSUMS]) {
        let missing = || io::Error::other(format!("no module {module} in {}", all.display()));
        let (file, needs) = needs.get(*module).ok_or_else(missing)?;
        // The farthest need is last in a line.
        for file in needs.split_whitespace().rev().chain([*file]) {
            if !order.iter().any(|have| have == file) {
                order.push(file.to_owned());
            }
        }
    }
    Ok(order)
}

/// A cpio archive in the "newc" format (Linux Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn file(&mut self, name: &str, mode: u32, contents: &[u8]) {
        self.entry(name, 0o100_000 | mode, contents, (0, 0));
    }

    /// The first process has no standard streams but by this.
    fn node(&mut self, name: &str, major: u32, minor: u32) {
        self.entry("dev", 0o040_755, &[], (0, 0));
        self.entry(&format!("dev/{name}"), 0o020_600, &[], (major, minor));
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8], device: (u32, u32)) {
        let name = name.trim_start_matches('/');
        // Inode, mode, user, group, links, time, size, device of the file system, device, name's length, checksum.
        let numbers = [
            0,
            mode,
            0,
            0,
            1,
            0,
            contents.len() as u32,
            0,
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0,
        ];
        self.0.extend(b"070701");
        for number in numbers {
            self.0.extend(format!("{number:08x}").as_bytes());
        }
        self.0.extend(name.as_bytes());
        self.0.push(0);
        self.pad();
        self.0.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.0
    }
}
