//! The machine: QEMU with software emulation, Debian's stock kernel, and an initramfs made here.

use crate::initramfs::initramfs;
use crate::wire::{AGENT, ROOT_TAG};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub const QEMU: &str = "qemu-system-x86_64";
/// An environment variable with more arguments for it: a monitor, or `-s` for a debugger.
const MORE: &str = "KVMLET_QEMU_ARGUMENTS";
/// One CPU. With two, guests hang: when QEMU injects an interrupt into a guest (VMRUN with EVENTINJ; `helper_vmrun` of
/// target/i386/tcg, from 7.2 to 10.1 at least), it leaves the vector in `exception_index`, and delivers it once more,
/// whatever the guest's RFLAGS.IF, if its loop comes to a pause before the next VM exit. One thread for several CPUs
/// (`thread=single`) comes to such pauses whenever another CPU is sent an interrupt or has its turn; a lone CPU has none.
/// A thread for each CPU is no way out: now and then it executes for ever a breakpoint that Linux had put into its own
/// code and removed again (static keys, as netfilter, KVM and clock sources switch them), and the machine hangs.
const MACHINE: &str = "-accel tcg,thread=single -cpu EPYC,+svm -smp 1 -m 2000";
/// With `reliable` there are three clock sources to choose from.
const CMDLINE: &str = "console=ttyS0 panic=-1 mitigations=off tsc=reliable";
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
            .args(MACHINE.split(' '))
            .arg("-kernel")
            .arg(kernel.join("vmlinuz"))
            .args(["-initrd", &path(&initramfs)])
            .args(["-append", CMDLINE])
            .args(["-serial", &format!("file:{}", path(&console))])
            .args(["-chardev", "stdio,id=agent,signal=off"])
            .args(port(AGENT))
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
            .args(std::env::var(MORE).unwrap_or_default().split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(console.try_clone()?);
        let files = [&initramfs, &disk, &console].map(|file| file.as_raw_fd());
        bequeath(&mut command, files.to_vec());
        let process = command.spawn()?;
        let console = Console(console);
        Ok(Self { process, console })
    }
}

/// Has a program keep these descriptors, and end with the thread that starts it.
fn bequeath(command: &mut Command, descriptors: Vec<RawFd>) {
    let parent = std::process::id();
    let prepare = move || {
        // SAFETY: system calls that take numbers only.
        unsafe {
            for descriptor in &descriptors {
                libc::fcntl(*descriptor, libc::F_SETFD, 0);
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
}

/// A virtio port, on a device of its own, that is connected to the character device of the same name.
fn port(name: &str) -> Vec<String> {
    vec![
        "-device".into(),
        format!("virtio-serial-pci,id=bus-{name}"),
        "-device".into(),
        format!("virtserialport,bus=bus-{name}.0,chardev={name},name={name}"),
    ]
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
