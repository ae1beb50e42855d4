//! The machine: QEMU with software emulation, Debian's stock kernel, and an initramfs made here.

use crate::wire::{ROOT_TAG, SETTINGS, Settings};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub const QEMU: &str = "qemu-system-x86_64";
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
const DISK_BYTES: u64 = 8 << 30;

/// The directory of Debian's kernel in the cache, which `tests/second_host/kernel` has put there.
pub fn kernel() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let current = base
        .unwrap_or_else(home)
        .join("kvmlet/stock-kernel/current");
    current.canonicalize().unwrap_or(current)
}

/// A machine's process, and what the kernel in it writes to its serial port.
pub struct Machine {
    process: Child,
    pub console: Console,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Machine {
    /// Starts one. It ends with the thread that calls this, however that ends.
    pub fn start() -> Result<Self, String> {
        Self::try_start().map_err(|error| format!("{QEMU}: {error}"))
    }

    /// The way to the agent and the one back.
    pub fn streams(&mut self) -> (ChildStdin, ChildStdout) {
        let streams = (self.process.stdin.take(), self.process.stdout.take());
        (streams.0.unwrap(), streams.1.unwrap())
    }

    fn try_start() -> io::Result<Self> {
        let kernel = kernel();
        // None of these has a name that could stay behind.
        let initramfs = memory_file(&initramfs(&kernel)?)?;
        let disk = disk()?;
        let console = tempfile::tempfile()?;
        let path = |file: &dyn AsRawFd| format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut command = Command::new(QEMU);
        command
            .args("-nodefaults -no-user-config -display none -monitor none -no-reboot".split(' '))
            .args("-accel tcg,thread=multi -cpu EPYC,+svm -smp 2 -m 2000".split(' '))
            .arg("-kernel")
            .arg(kernel.join("vmlinuz"))
            .args(["-initrd", &path(&initramfs)])
            // With `reliable` there are three clock sources to choose from.
            .args([
                "-append",
                "console=ttyS0 panic=-1 mitigations=off tsc=reliable",
            ])
            .args(["-serial", &format!("file:{}", path(&console))])
            .args(["-chardev", "stdio,id=agent,signal=off"])
            .args("-device virtio-serial-pci -device virtserialport,chardev=agent".split(' '))
            .arg("-drive")
            .arg(format!(
                "file={},format=raw,if=virtio,cache=unsafe",
                path(&disk)
            ))
            .args([
                "-fsdev",
                "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
            ])
            .args([
                "-device",
                &format!("virtio-9p-pci,fsdev=root,mount_tag={ROOT_TAG}"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(console.try_clone()?);
        let kept = [&initramfs, &disk, &console].map(|file| file.as_raw_fd());
        let parent = std::process::id();
        let prepare = move || {
            // SAFETY: system calls that take numbers only.
            unsafe {
                for descriptor in kept {
                    libc::fcntl(descriptor, libc::F_SETFD, 0);
                }
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                if libc::getppid() != parent as i32 {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
            Ok(())
        };
        // SAFETY: it makes system calls only.
        unsafe { command.pre_exec(prepare) };
        let process = command.spawn()?;
        let console = Console(console);
        Ok(Self { process, console })
    }
}

/// What the machine's kernel and QEMU itself have written.
pub struct Console(File);

impl Console {
    /// The last lines.
    pub fn tail(&self, lines: usize) -> String {
        let mut bytes = Vec::new();
        // Another description: QEMU's place in the file is its own.
        let file = File::open(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        let _ = file.and_then(|mut file| file.read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes);
        // What the emulation leaves out of the CPU's model is said for each CPU, and is no news.
        let news = |line: &&str| !line.contains("TCG doesn't support requested feature");
        let all: Vec<&str> = text.lines().filter(news).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

fn memory_file(contents: &[u8]) -> io::Result<File> {
    // SAFETY: the name ends with a zero, and the descriptor is new.
    let mut file = unsafe {
        let descriptor = libc::memfd_create(c"initramfs".as_ptr(), libc::MFD_CLOEXEC);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from(OwnedFd::from_raw_fd(descriptor))
    };
    file.write_all(contents)?;
    file.rewind()?;
    Ok(file)
}

/// An ext4 file system that exists as long as somebody has it open.
fn disk() -> io::Result<File> {
    let file = tempfile::tempfile()?;
    file.set_len(DISK_BYTES)?;
    let output = Command::new("mkfs.ext4")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args("-q -F -O ^has_journal -E lazy_itable_init=1 /proc/self/fd/0".split(' '))
        .stdin(file.as_fd().try_clone_to_owned()?)
        .output()?;
    match output.status.success() {
        true => Ok(file),
        false => Err(io::Error::other(format!(
            "mkfs.ext4: {}",
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}

/// This executable as the first process, the modules that it loads first, and what it has to know.
fn initramfs(kernel: &Path) -> io::Result<Vec<u8>> {
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
