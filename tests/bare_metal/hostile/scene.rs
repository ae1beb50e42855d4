//! A host of a test's own, with three users: one who runs kvmlet, one who wants to hurt him, and root. `/tmp`, `/run`,
//! `/home` and the network are the scene's; the programs are those of the test.

use crate::harness::patience::eventually;
use crate::harness::program;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

pub const VICTIM: u32 = 23_002;
pub const ATTACKER: u32 = 23_001;

/// Who runs kvmlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// An ordinary user.
    Victim,
    Root,
    /// The attacker, and the file has capabilities: more than it should.
    Privileged,
    /// The attacker, and the file is set-user-ID root.
    SetUserId,
}

impl Who {
    fn user(self) -> u32 {
        match self {
            Self::Victim => VICTIM,
            Self::Root => 0,
            Self::Privileged | Self::SetUserId => ATTACKER,
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Victim | Self::Root => "/mnt/bin/kvmlet",
            Self::Privileged => "/mnt/bin/kvmlet-capable",
            Self::SetUserId => "/mnt/bin/kvmlet-setuid",
        }
    }
}

/// The scene, for as long as its thread lives.
pub struct Scene {
    /// Processes that nobody may kill, or that the attacker runs.
    children: Vec<Child>,
    cgroups: Vec<PathBuf>,
}

impl Scene {
    /// Takes the calling thread there; the tests' other threads stay where they are.
    pub fn enter() -> Self {
        let programs = programs();
        // SAFETY: descriptors stay as they are.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }.unwrap();
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        mount_change("/", private).unwrap();
        for (place, mode) in [
            ("/tmp", c"mode=1777"),
            ("/run", c"mode=755"),
            ("/home", c"mode=755"),
        ] {
            mount("tmpfs", place, "tmpfs", MountFlags::empty(), Some(mode)).unwrap();
        }
        mount(
            "tmpfs",
            "/mnt",
            "tmpfs",
            MountFlags::empty(),
            Some(c"mode=755"),
        )
        .unwrap();
        fs::create_dir("/mnt/bin").unwrap();
        mount_bind(programs, "/mnt/bin").unwrap();
        // Devices that all may use, as on a host where users run VMs.
        for (node, number, device) in [
            ("/mnt/kvm", (10, 232), "/dev/kvm"),
            ("/mnt/tun", (10, 200), "/dev/net/tun"),
        ] {
            make_device(Path::new(node), number).unwrap();
            mount_bind(node, device).unwrap();
        }
        make_device(Path::new(NULL), (1, 3)).unwrap();
        for (name, user) in [("victim", VICTIM), ("attacker", ATTACKER), ("root", 0)] {
            let home = Path::new("/home").join(name);
            fs::create_dir_all(home.join("kvmlet")).unwrap();
            fs::create_dir(home.join("empty")).unwrap();
            fs::write(home.join("canary"), "alive").unwrap();
            fs::write(home.join("kvmlet/canary"), "alive").unwrap();
            for path in ["", "kvmlet", "empty", "canary", "kvmlet/canary"] {
                chown(home.join(path), Some(user), Some(user)).unwrap();
            }
        }
        let mut scene = Self {
            children: Vec::new(),
            cgroups: Vec::new(),
        };
        // One process for all: a scene is made a hundred times.
        scene.script(0, "printf '%s\\n' 'link set lo up' 'tuntap add dev victim0 mode tap' \
                             'addr add 192.0.2.1/24 dev victim0' 'link set victim0 up' | ip -batch -; \
                         echo 1 >/proc/sys/net/ipv4/conf/victim0/forwarding; nft add table ip canary");
        for user in [VICTIM, 0] {
            scene.background(user, "exec sleep 1000");
        }
        scene.guarded_cgroup();
        scene
    }

    /// A cgroup of somebody else's, with a process in it, where this host lets us have one.
    fn guarded_cgroup(&mut self) {
        // Version 1 or 2.
        let trees = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"].map(Path::new);
        let tree = trees
            .into_iter()
            .find(|tree| tree.join("cgroup.procs").exists());
        let Some(path) = tree.map(|tree| tree.join(format!("canary-{}", unique()))) else {
            return;
        };
        fs::create_dir(&path).unwrap();
        let pid = self.children[1].id().to_string();
        fs::write(path.join("cgroup.procs"), pid).unwrap();
        self.cgroups.push(path);
    }

    /// The cgroup that is not kvmlet's.
    pub fn cgroup(&self) -> Option<&Path> {
        self.cgroups.first().map(PathBuf::as_path)
    }

    fn shell(&self, user: u32, script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-euc", script])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("V", VICTIM.to_string())
            .env("A", ATTACKER.to_string())
            .env("CGROUP", self.cgroup().unwrap_or(Path::new("/nowhere")))
            .env("NAMESPACE", namespace())
            .uid(user)
            .gid(user)
            .current_dir("/tmp")
            .stdin(Stdio::null());
        command
    }

    /// Has a user do something. It must succeed: an attack that does not happen tests nothing.
    pub fn script(&self, user: u32, script: &str) {
        if script.is_empty() {
            return;
        }
        let output = self.shell(user, script).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {message}");
    }

    /// Does a script of root's succeed?
    pub fn holds(&self, script: &str) -> bool {
        self.shell(0, script).output().unwrap().status.success()
    }

    /// Has a user do something for as long as the scene lasts.
    pub fn background(&mut self, user: u32, script: &str) {
        let child = self.shell(user, script).stdout(Stdio::null()).spawn();
        self.children.push(child.unwrap());
    }

    /// Runs kvmlet.
    pub fn kvmlet(&self, who: Who, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        let user = who.user();
        let mut command = Command::new(who.program());
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs(environment.iter().copied())
            .uid(user)
            .gid(user)
            .current_dir("/tmp")
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Everything that is to be as it is: files with their contents, mode and owner, interfaces, tables, processes.
    pub fn picture(&mut self) -> BTreeMap<PathBuf, String> {
        let mut picture = BTreeMap::new();
        for top in ["/home", "/tmp", "/run", NULL] {
            look(Path::new(top), &mut picture);
        }
        for (name, script) in [
            (
                "interface",
                "ip -4 -o addr show victim0; read on </proc/sys/net/ipv4/conf/victim0/forwarding; echo $on",
            ),
            ("tables", "nft list table ip canary"),
        ] {
            let output = self.shell(0, script).output().unwrap();
            picture.insert(name.into(), format!("{output:?}"));
        }
        for child in &mut self.children[..2] {
            let ended = child.try_wait().unwrap();
            picture.insert(
                format!("process {}", child.id()).into(),
                format!("{ended:?}"),
            );
        }
        for path in &self.cgroups {
            picture.insert(path.clone(), format!("{}", path.exists()));
        }
        picture
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for path in &self.cgroups {
            eventually("a cgroup is empty", || {
                fs::remove_dir(path).is_ok() || !path.exists()
            });
        }
    }
}

/// A `/dev/null` that only tests would miss.
pub const NULL: &str = "/mnt/null";

/// Makes a character device that all may use.
pub fn make_device(path: &Path, (major, minor): (u32, u32)) -> rustix::io::Result<()> {
    use rustix::fs::{CWD, FileType, Mode, chmodat, makedev, mknodat};
    let mode = Mode::from(0o666);
    let number = makedev(major, minor);
    mknodat(CWD, path, FileType::CharacterDevice, mode, number)?;
    chmodat(CWD, path, mode, rustix::fs::AtFlags::empty())
}

fn look(path: &Path, picture: &mut BTreeMap<PathBuf, String>) {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return;
    };
    let contents = match meta.file_type() {
        kind if kind.is_file() => format!("{:?}", fs::read(path)),
        kind if kind.is_symlink() => format!("{:?}", fs::read_link(path)),
        _ => String::new(),
    };
    let (mode, user) = (meta.mode(), meta.uid());
    picture.insert(path.into(), format!("{mode:o} {user} {contents}"));
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap().flatten() {
            look(&entry.path(), picture);
        }
    }
}

/// The number of the network namespace, as leases have it.
fn namespace() -> String {
    let meta = fs::metadata("/proc/thread-self/ns/net").unwrap();
    meta.ino().to_string()
}

fn unique() -> String {
    format!("{}-{:?}", std::process::id(), std::thread::current().id()).replace(['(', ')'], "")
}

/// A directory with kvmlet, once as it is and once with the rights that administrators give it by mistake, and guests.
fn programs() -> &'static Path {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        let place = |name: &str, from: &Path, mode: u32| {
            let to = directory.path().join(name);
            fs::copy(from, &to).unwrap();
            fs::set_permissions(&to, Permissions::from_mode(mode)).unwrap();
            to
        };
        let kvmlet = Path::new(env!("CARGO_BIN_EXE_kvmlet"));
        place("kvmlet", kvmlet, 0o755);
        place("kvmlet-setuid", kvmlet, 0o4755);
        let capable = place("kvmlet-capable", kvmlet, 0o755);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(capable, "security.capability", &CAPABILITIES, flags).unwrap();
        for guest in ["ready", "pvh_entry", "spin"] {
            place(guest, &program(guest), 0o644);
        }
        directory
    });
    made.path()
}

/// `vfs_cap_data` of linux/capability.h: version 2, effective, permitted CAP_DAC_OVERRIDE (1) and CAP_NET_ADMIN (12).
const CAPABILITIES: [u8; 20] = {
    let mut bytes = [0; 20];
    (bytes[0], bytes[3]) = (1, 2);
    (bytes[4], bytes[5]) = (1 << 1, 1 << 4);
    bytes
};
