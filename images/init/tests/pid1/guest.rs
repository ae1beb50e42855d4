//! A container with the real init as its first process.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kvmlet_contract::machine::{EXIT_CODE_PORT, SLEEP_CONTROL_PORT, SLEEP_POWER_OFF};
use kvmlet_contract::{GuestSpec, ServiceSpec};
use tempfile::TempDir;

/// A test that waits longer has failed. What is tested takes less than a tenth of it, even where much else runs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the container's first process does before it becomes init.
const SET_UP: &str = r#"
set -e
echo there are namespaces
read -r mapped
cd "$1"
if [ "$2" = read-only ]; then
    mount --bind . .
    cd "$1"
    [ ! -d agent ] || mount --bind agent agent
fi
mount --rbind -o ro /usr usr
mount -t tmpfs dev dev
for device in port null; do
    touch dev/$device
    mount --bind $device dev/$device
done
mount -t proc proc proc
ip link add eth0 type veth peer name peer
ip link set peer up
mount --bind cmdline proc/cmdline
[ "$2" != read-only ] || mount -o remount,bind,ro .
exec chroot . /init
"#;

/// A root directory, and what runs in it.
pub struct Guest {
    pub root: TempDir,
    pub cmdline: String,
    /// Nothing in the root can be changed.
    pub read_only: bool,
}

/// How a guest ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code that was reported.
    pub code: Option<u8>,
    /// Whether the power was switched off by then.
    pub powered_off: bool,
    /// What service and init wrote.
    pub output: String,
}

impl Guest {
    /// Nothing if this host has no user namespaces for us.
    pub fn new(cmdline: &str) -> Option<Self> {
        let probe = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--net",
                "ip",
                "link",
                "add",
                "type",
                "veth",
            ])
            .output();
        match probe {
            Ok(probe) if probe.status.success() => {}
            other => {
                skipped(&format!(
                    "no user namespace with a veth can be made here: {other:?}"
                ));
                return None;
            }
        }
        let root = TempDir::new().unwrap();
        let path = root.path();
        for directory in [
            "usr",
            "dev",
            "proc",
            "sys",
            "etc/kvmlet",
            "run",
            "tmp",
            "srv",
        ] {
            fs::create_dir_all(path.join(directory)).unwrap();
        }
        for directory in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{directory}"), path.join(directory)).unwrap();
        }
        for file in ["port", "null"] {
            fs::write(path.join(file), "").unwrap();
        }
        fs::copy(env!("CARGO_BIN_EXE_kvmlet-init"), path.join("init")).unwrap();
        Some(Self {
            root,
            cmdline: cmdline.into(),
            read_only: false,
        })
    }

    /// A guest whose service is a shell script.
    pub fn script(script: &str) -> Option<Self> {
        Self::with(|guest| guest.service = shell(script))
    }

    pub fn with(describe: impl FnOnce(&mut GuestSpec)) -> Option<Self> {
        let mut spec = GuestSpec::default();
        describe(&mut spec);
        Self::new(&spec.to_cmdline())
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        fs::write(self.root.path().join(path), content).unwrap();
        self
    }

    pub fn start(self) -> Running {
        fs::write(
            self.root.path().join("cmdline"),
            format!("quiet {}\n", self.cmdline),
        )
        .unwrap();
        // A kernel starts its init with no signal ignored; whoever runs the tests may ignore some.
        let mut child = Command::new("env")
            .args(["--default-signal", "unshare"])
            .args(NAMESPACES)
            .args(["sh", "-c", SET_UP, "sh"])
            .arg(self.root.path())
            .arg(if self.read_only { "read-only" } else { "" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut running = Running {
            guest: self,
            child,
            output,
        }
        .wait_for("there are namespaces");
        map_users(running.child.id());
        drop(writeln!(running.child.stdin.take().unwrap()));
        running
    }

    pub fn run(self) -> Outcome {
        self.start().wait()
    }
}

/// Says so where the test harness does not swallow it.
pub fn skipped(reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// Makes users of the host known in the user namespace of a process: all that we may.
fn map_users(process: u32) {
    let own = fs::metadata("/proc/self").unwrap();
    let maps = if is_root() {
        [
            ("uid_map", "0 0 65536".into()),
            ("gid_map", "0 0 65536".into()),
        ]
    } else {
        fs::write(format!("/proc/{process}/setgroups"), "deny").unwrap();
        [
            ("uid_map", format!("0 {} 1", own.uid())),
            ("gid_map", format!("0 {} 1", own.gid())),
        ]
    };
    for (file, map) in maps {
        fs::write(format!("/proc/{process}/{file}"), map).unwrap();
    }
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// All that init touches, and an end of everything in them when the test ends.
const NAMESPACES: [&str; 8] = [
    "--user",
    "--mount",
    "--pid",
    "--net",
    "--uts",
    "--ipc",
    "--fork",
    "--kill-child",
];

pub struct Running {
    guest: Guest,
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

/// A test that failed leaves no guest behind.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Waits until the service has written a certain line.
    pub fn wait_for(mut self, expected: &str) -> Self {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if line.trim_end() == expected {
                return self;
            }
            line.clear();
        }
        panic!("the service never wrote {expected}: {:?}", self.wait());
    }

    /// Sends a signal to init, unless it has just ended.
    pub fn signal(self, name: &str) -> Self {
        if let Some(init) = self.init() {
            let kill = Command::new("kill")
                .args(["-s", name, &init])
                .status()
                .unwrap();
            assert!(kill.success() || self.has_ended());
        }
        self
    }

    /// Whether there is no init any more.
    pub fn has_ended(&self) -> bool {
        let Some(init) = self.init() else { return true };
        // proc_pid_stat(5): the state follows the name. It has one for each way to wait, and two for none.
        match fs::read_to_string(format!("/proc/{init}/stat")) {
            Ok(stat) => stat.contains(") Z") || stat.contains(") X"),
            Err(_) => true,
        }
    }

    /// The guest's root directory.
    pub fn root(&self) -> &Path {
        self.guest.root.path()
    }

    /// A line of what the kernel says of init's process.
    fn status(&self, key: &str) -> u64 {
        let init = self.init().unwrap();
        let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.unwrap().split_whitespace().next();
        number.unwrap().parse().unwrap()
    }

    /// How often init has gone to sleep.
    pub fn switches(&self) -> u64 {
        self.status("voluntary_ctxt_switches:")
    }

    /// How much memory init has of its own.
    pub fn memory_kib(&self) -> u64 {
        self.status("RssAnon:")
    }

    /// The number of init's process.
    fn init(&self) -> Option<String> {
        let parent = self.child.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.ok()?.trim().to_string();
        (!children.is_empty()).then_some(children)
    }

    pub fn wait(mut self) -> Outcome {
        let mut output = String::new();
        self.output.read_to_string(&mut output).unwrap();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut output)
            .unwrap();
        self.child.wait().unwrap();
        let port = fs::read(self.guest.root.path().join("port")).unwrap();
        Outcome {
            code: port.get(usize::from(EXIT_CODE_PORT)).copied(),
            powered_off: port.get(usize::from(SLEEP_CONTROL_PORT)) == Some(&SLEEP_POWER_OFF),
            output,
        }
    }
}

pub fn shell(script: &str) -> ServiceSpec {
    let command = ["sh", "-c", script].map(String::from).into();
    ServiceSpec {
        command,
        ..Default::default()
    }
}
