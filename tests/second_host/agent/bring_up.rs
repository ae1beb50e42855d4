//! The first process: makes an ordinary host of a kernel and an initramfs, starts the agent, and reaps.
//!
//! The root is that of the first host, read through 9p, below an overlay on a disk that is new each time: all
//! programs, kernels and test executables are where they are there, and whatever is written stays here.

use super::{AGENT, session};
use crate::wire::{ROOT_TAG, SETTINGS, Settings};
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::system::RebootCommand;
use std::ffi::CStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};

type Step = Result<(), String>;

/// What the CPU's driver and `/dev/net/tun` would have udev load on another host.
const MODULES: [&str; 4] = ["kvm_amd", "tun", "loop", "vhost_net"];

pub fn main() -> ! {
    if let Err(reason) = bring_up().and_then(|()| serve()) {
        eprintln!("the second host cannot come up: {reason}");
    }
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
    std::process::exit(1);
}

fn bring_up() -> Step {
    let none = MountFlags::empty();
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        file_system(kind, at, none, None)?;
    }
    let text = fs::read(SETTINGS).map_err(|error| format!("{SETTINGS}: {error}"))?;
    let settings: Settings = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    for module in &settings.modules {
        load(module)?;
    }
    root()?;
    let modules = format!("/lib/modules/{}", settings.release);
    fs::create_dir_all(&modules).map_err(|error| format!("{modules}: {error}"))?;
    mount_bind(&*settings.all_modules, &*modules).map_err(|error| format!("{modules}: {error}"))?;
    program("modprobe", &[&["-a"], &MODULES[..]].concat())?;
    program("ip", &["link", "set", "lo", "up"])?;
    let _ = rustix::system::sethostname(b"second-host");
    kvm_for_its_group()?;
    links()?;
    session::controllers()
}

/// Those that udev makes below /dev.
fn links() -> Step {
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, link).map_err(|error| format!("{link}: {error}"))?;
    }
    Ok(())
}

fn file_system(kind: &str, at: &str, flags: MountFlags, data: Option<&CStr>) -> Step {
    let made = fs::create_dir_all(at).map_err(|error| error.to_string());
    let mounted =
        made.and_then(|()| mount(kind, at, kind, flags, data).map_err(|error| error.to_string()));
    mounted.map_err(|reason| format!("{kind} at {at}: {reason}"))
}

fn load(module: &str) -> Step {
    let file = fs::File::open(module).map_err(|error| format!("{module}: {error}"))?;
    rustix::system::finit_module(&file, c"", 0).map_err(|error| format!("{module}: {error}"))
}

/// The first host's files below a layer of our own becomes the root.
fn root() -> Step {
    let at = |what: &str| {
        let what = what.to_owned();
        move |error: rustix::io::Errno| format!("{what}: {error}")
    };
    for directory in ["/lower", "/disk", "/new"] {
        let _ = fs::create_dir(directory);
    }
    let options = c"trans=virtio,version=9p2000.L,msize=512000,cache=loose";
    mount(ROOT_TAG, "/lower", "9p", MountFlags::RDONLY, options).map_err(at("9p"))?;
    mount("/dev/vda", "/disk", "ext4", MountFlags::empty(), None).map_err(at("ext4"))?;
    for directory in ["/disk/upper", "/disk/work", "/disk/tmp"] {
        let _ = fs::create_dir(directory);
    }
    let options = c"lowerdir=/lower,upperdir=/disk/upper,workdir=/disk/work";
    mount("overlay", "/new", "overlay", MountFlags::empty(), options).map_err(at("overlay"))?;
    mount_bind("/disk/tmp", "/new/tmp").map_err(at("/tmp"))?;
    for directory in ["/proc", "/sys", "/dev"] {
        mount_move(directory, format!("/new{directory}")).map_err(at(directory))?;
    }
    std::env::set_current_dir("/new").map_err(|error| error.to_string())?;
    mount_move(".", "/").map_err(at("/"))?;
    rustix::process::chroot(".").map_err(at("chroot"))?;
    let open = |path| fs::set_permissions(path, fs::Permissions::from_mode(0o1777));
    open("/tmp").map_err(|error| error.to_string())?;
    // Ones of our own: sockets, locks and notes of the first host mean nothing here.
    file_system("tmpfs", "/run", MountFlags::NOSUID, Some(c"mode=755"))?;
    file_system("tmpfs", "/dev/shm", MountFlags::NOSUID, Some(c"mode=1777"))?;
    file_system(
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID,
        Some(c"ptmxmode=666"),
    )?;
    file_system("cgroup2", "/sys/fs/cgroup", MountFlags::NOSUID, None)
}

/// A program of the first host that has to succeed.
fn program(name: &str, arguments: &[&str]) -> Step {
    let output = Command::new(name)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{name} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// `/dev/kvm` as udev's package in Debian has it, which the first host may be without.
fn kvm_for_its_group() -> Step {
    let group = || -> std::io::Result<()> {
        if session::group_number("kvm").is_none() {
            let mut groups = fs::OpenOptions::new().append(true).open("/etc/group")?;
            groups.write_all(b"kvm:x:108:\n")?;
        }
        chown("/dev/kvm", None, session::group_number("kvm"))?;
        fs::set_permissions("/dev/kvm", fs::Permissions::from_mode(0o660))
    };
    group().map_err(|error| format!("/dev/kvm: {error}"))
}

/// Runs the agent to its end. Orphans become children of this process, so it does nothing but wait.
fn serve() -> Step {
    let agent = Command::new("/proc/self/exe").arg(AGENT).spawn();
    let agent = agent.map_err(|error| format!("the agent: {error}"))?;
    loop {
        let mut status = 0;
        // SAFETY: the kernel stores one status.
        let child = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if child == agent.id() as i32 {
            return Err(format!("its agent has ended with status {status:#x}"));
        }
    }
}
