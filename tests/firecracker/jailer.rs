//! VMs that are started as Firecracker's jailer starts them.

use crate::client::{ask, children, ended, output};
use crate::harness::pager::{Oddities, Pager};
use crate::harness::{Test, deadline, has_ended, program};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

pub const TESTS: &[Test] = &[
    ("a_jailed_vm_has_its_own_root_and_user", jailed),
    ("a_jailed_vm_goes_on_in_the_background", background),
    ("a_jailed_vm_uses_the_taps_of_its_namespace", namespace),
    ("a_jailed_vm_runs_in_its_cgroup_and_limits", cgroup),
    ("a_jailed_vm_is_saved_and_goes_on_in_another_jail", saved),
    ("a_jail_that_cannot_be_leaves_nothing", nothing),
];

const USER: u32 = 43_210;
const GROUP: u32 = 43_211;

/// Where jails are, and what is run in them.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join("firecracker");
        symlink(env!("CARGO_BIN_EXE_kvmlet-serve"), link).unwrap();
        fs::create_dir(place.path().join("base")).unwrap();
        Self(place)
    }

    fn base(&self) -> PathBuf {
        self.0.path().join("base")
    }

    fn root(&self, id: &str) -> PathBuf {
        self.base().join("firecracker").join(id).join("root")
    }

    /// Puts files there before the jail is made, as clients do.
    fn give(&self, id: &str, files: &[(&Path, &str)]) {
        fs::create_dir_all(self.root(id)).unwrap();
        for (from, name) in files {
            let to = self.root(id).join(name);
            fs::copy(from, &to).unwrap();
            std::os::unix::fs::chown(&to, Some(USER), Some(GROUP)).unwrap();
        }
    }

    fn jailer(&self, id: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet-serve"));
        command.args(["jailer", "--id", id]);
        command
            .arg("--exec-file")
            .arg(self.0.path().join("firecracker"));
        command.args(["--uid", &USER.to_string(), "--gid", &GROUP.to_string()]);
        command.arg("--chroot-base-dir").arg(self.base());
        command
    }

    fn socket(&self, id: &str) -> PathBuf {
        let socket = self.root(id).join("run/firecracker.socket");
        until("nobody listens", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        socket
    }

    fn pid(&self, id: &str) -> u32 {
        let text = fs::read_to_string(self.root(id).join("firecracker.pid")).unwrap();
        text.parse().unwrap()
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < deadline(), "{what}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// A process that is killed if its test fails.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn line(&mut self) -> String {
        let output = self.0.stdout.as_mut().unwrap();
        let mut line = String::new();
        BufReader::with_capacity(1, output)
            .read_line(&mut line)
            .unwrap();
        line
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn done(socket: &Path, method: &str, path: &str, body: &Value) {
    let answer = ask(socket, method, path, &body.to_string());
    assert_eq!(answer, (204, String::new()), "{method} {path} {body}");
}

fn describe(socket: &Path) {
    let machine = json!({ "vcpu_count": 1, "mem_size_mib": 32 });
    done(socket, "PUT", "/machine-config", &machine);
    let boot = json!({ "kernel_image_path": "/kernel", "boot_args": "" });
    done(socket, "PUT", "/boot-source", &boot);
}

fn start(socket: &Path) {
    done(
        socket,
        "PUT",
        "/actions",
        &json!({ "action_type": "InstanceStart" }),
    );
}

/// A line of what the kernel tells of a process.
fn status(pid: u32, key: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let words = line.expect(key).trim_start_matches(':').split_whitespace();
    words.map(String::from).collect()
}

fn of(pid: u32, name: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/{name}")).unwrap()
}

fn jailed() {
    let place = Place::new();
    place.give("vm-1", &[(&program("ready_stay"), "kernel")]);
    let mut vm = Running::start(place.jailer("vm-1").env("SECRET", "1"));
    let socket = place.socket("vm-1");
    let told: Value = serde_json::from_str(&ask(&socket, "GET", "/", "").1).unwrap();
    assert_eq!(told["id"], "vm-1");
    // The process that was started is the one that serves.
    let pid = vm.0.id();
    assert_eq!(place.pid("vm-1"), pid);
    let ids = |id: u32| vec![id.to_string(); 4];
    assert_eq!(
        (status(pid, "Uid"), status(pid, "Gid")),
        (ids(USER), ids(GROUP))
    );
    assert_eq!(status(pid, "Groups"), Vec::<String>::new());
    assert_eq!(status(pid, "NoNewPrivs"), ["1"]);
    assert_eq!(status(pid, "CapEff"), ["0000000000000000"]);
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(environment, "XDG_RUNTIME_DIR=/run\0");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    assert!(files.unwrap().contains(" 2048 "), "{limits}");

    let root = place.root("vm-1");
    let look = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    for name in [
        "",
        "dev",
        "dev/net",
        "run",
        "dev/kvm",
        "dev/net/tun",
        "dev/urandom",
    ] {
        let found = look(name);
        assert_eq!((found.uid(), found.gid()), (USER, GROUP), "{name}");
        let mode = if found.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(found.mode() & 0o7777, mode, "{name}");
        assert_eq!(
            found.file_type().is_char_device(),
            !found.is_dir(),
            "{name}"
        );
    }
    assert_eq!(
        look("dev/kvm").rdev(),
        fs::metadata("/dev/kvm").unwrap().rdev()
    );
    // Nothing of the host is there but what was put there.
    let outside = json!({ "kernel_image_path": program("ready_stay"), "boot_args": "" });
    let (code, told) = ask(&socket, "PUT", "/boot-source", &outside.to_string());
    assert!(code == 400 && told.contains("No such file"), "{told}");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut places: Vec<_> = places.collect();
    places.sort_unstable();
    assert_eq!(places, ["/", "/firecracker", "/kvmlet", "/proc"]);

    describe(&socket);
    start(&socket);
    assert_eq!(vm.line(), "ready\n");
    // kvmlet's walls are in there: the VM's process sees nothing, not even that root.
    let processes = children(pid);
    assert!(processes.len() >= 2, "{processes:?}");
    let inner = *processes
        .iter()
        .max_by_key(|pid| status(**pid, "NSpid").len())
        .unwrap();
    assert_eq!(status(inner, "Seccomp"), ["2"]);
    for kind in ["ns/mnt", "ns/net", "ns/pid", "ns/user", "ns/ipc"] {
        assert_ne!(of(inner, kind), of(pid, kind), "{kind}");
    }
    assert_eq!(
        fs::read_dir(format!("/proc/{inner}/root/"))
            .unwrap()
            .count(),
        0
    );
    // A second one of that id would have the same files.
    let second = output(&mut place.jailer("vm-1"));
    let told = String::from_utf8(second.stderr).unwrap();
    assert!(
        told.contains("is there already: a VM of this --id has it"),
        "{told}"
    );
    assert!(look("dev/kvm").file_type().is_char_device());
    assert_eq!(ask(&socket, "GET", "/", "").0, 200);
    kill(pid);
    assert_eq!(ended(&mut vm.0).code(), Some(143));
}

fn kill(pid: u32) {
    let killed = Command::new("kill").arg(pid.to_string()).status();
    assert!(killed.unwrap().success());
}

fn background() {
    let place = Place::new();
    for (id, words) in [
        ("one", &["--daemonize"][..]),
        ("two", &["--new-pid-ns"]),
        ("three", &["--daemonize", "--new-pid-ns"]),
    ] {
        place.give(id, &[(&program("ready_stay"), "kernel")]);
        let mut command = place.jailer(id);
        command
            .args(words)
            .args(["--", "--api-sock", "/run/firecracker.socket"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut jailer = command.spawn().unwrap();
        let own = jailer.id();
        assert_eq!(ended(&mut jailer).code(), Some(0), "{id}");
        let socket = place.socket(id);
        let pid = place.pid(id);
        assert_ne!(pid, own, "{id}");
        assert_eq!(status(pid, "Uid")[0], USER.to_string());
        describe(&socket);
        start(&socket);
        let numbers = status(pid, "NSpid");
        match words.contains(&"--new-pid-ns") {
            true => assert_eq!(numbers[1..], ["1"], "{id}"),
            false => assert_eq!(numbers.len(), 1, "{id}"),
        }
        if words.contains(&"--daemonize") {
            let streams = ["fd/0", "fd/1", "fd/2"].map(|name| of(pid, name));
            assert!(streams.iter().all(|it| it.ends_with("null")), "{streams:?}");
            assert_ne!(
                fs::read_to_string(format!("/proc/{pid}/stat"))
                    .unwrap()
                    .split(' ')
                    .nth(5),
                Some(&*own.to_string())
            );
        }
        let all = children(pid);
        kill(pid);
        until("it has not ended", || has_ended(pid));
        until("they have not ended", || {
            all.iter().all(|pid| has_ended(*pid))
        });
    }
}

fn namespace() {
    let place = Place::new();
    place.give("vm", &[(&program("metadata"), "kernel")]);
    let script =
        format!("ip tuntap add jtap0 mode tap user {USER} && echo there && exec sleep 1000");
    let mut holder = Running::start(Command::new("unshare").args(["--net", "sh", "-c", &script]));
    assert_eq!(holder.line(), "there\n");
    let path = format!("/proc/{}/ns/net", holder.0.id());
    let mut vm = Running::start(place.jailer("vm").args(["--netns", &path]));
    let socket = place.socket("vm");
    assert_eq!(of(vm.0.id(), "ns/net"), fs::read_link(&path).unwrap());
    describe(&socket);
    let interface = json!({ "iface_id": "eth0", "host_dev_name": "jtap0" });
    done(&socket, "PUT", "/network-interfaces/eth0", &interface);
    let metadata = json!({ "network_interfaces": ["eth0"] });
    done(&socket, "PUT", "/mmds/config", &metadata);
    done(&socket, "PUT", "/mmds", &json!({ "name": "jailed" }));
    start(&socket);
    assert_eq!(vm.line(), "told=200 jailed\n");
    let bucket = json!({ "size": 1000, "refill_time": 1000 });
    let limits = json!({ "iface_id": "eth0", "rx_rate_limiter": { "bandwidth": bucket } });
    done(&socket, "PATCH", "/network-interfaces/eth0", &limits);
    let (_, told) = ask(&socket, "GET", "/vm/config", "");
    let told: Value = serde_json::from_str(&told).unwrap();
    let limited = &told["network-interfaces"][0]["rx_rate_limiter"];
    assert_eq!(limited["bandwidth"]["size"], 1000);
    drop(vm);
    // Elsewhere there is no such tap, and this user makes none.
    place.give("other", &[(&program("ready_stay"), "kernel")]);
    let _other = Running::start(&mut place.jailer("other"));
    let socket = place.socket("other");
    describe(&socket);
    done(&socket, "PUT", "/network-interfaces/eth0", &interface);
    let start = json!({ "action_type": "InstanceStart" }).to_string();
    let (code, told) = ask(&socket, "PUT", "/actions", &start);
    assert!(code == 400 && told.contains("jtap0"), "{told}");
}

fn cgroup() {
    let place = Place::new();
    place.give("vm", &[(&program("ready_stay"), "kernel")]);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let pids = mounts.lines().find(|line| {
        let words: Vec<_> = line.split(' ').collect();
        words[2] == "cgroup" && words[3].split(',').any(|option| option == "pids")
    });
    let Some(pids) = pids.and_then(|line| line.split(' ').nth(1)) else {
        println!("SKIPPED: there is no version 1 of pids here");
        return;
    };
    let parent = format!("kvmlet-jailer-{}", std::process::id());
    let cgroup = Path::new(pids).join(&parent).join("vm");
    let mut command = place.jailer("vm");
    command.args(["--cgroup", "pids.max=77", "--parent-cgroup", &parent]);
    command.args([
        "--resource-limit",
        "no-file=300",
        "--resource-limit",
        "fsize=1000000",
    ]);
    let mut vm = Running::start(&mut command);
    let socket = place.socket("vm");
    describe(&socket);
    start(&socket);
    assert_eq!(vm.line(), "ready\n");
    assert_eq!(
        fs::read_to_string(cgroup.join("pids.max")).unwrap().trim(),
        "77"
    );
    let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    for pid in children(vm.0.id()).into_iter().chain([vm.0.id()]) {
        assert!(
            members.lines().any(|line| line == pid.to_string()),
            "{pid}: {members}"
        );
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let size = limits
            .lines()
            .find(|line| line.starts_with("Max file size"));
        let bytes = size.unwrap().split_whitespace().nth(3).map(str::parse);
        assert!(matches!(bytes, Some(Ok(..=1_000_000u64))), "{limits}");
    }
    drop(vm);
    until("the cgroup is in use", || fs::remove_dir(&cgroup).is_ok());
    fs::remove_dir(cgroup.parent().unwrap()).unwrap();
}

fn saved() {
    let place = Place::new();
    place.give("first", &[(&program("saved"), "kernel")]);
    let mut first = Running::start(&mut place.jailer("first"));
    let socket = place.socket("first");
    describe(&socket);
    start(&socket);
    let line = first.line();
    assert!(line.starts_with("round="), "{line}");
    done(&socket, "PATCH", "/vm", &json!({ "state": "Paused" }));
    let wish = json!({ "snapshot_path": "/state", "mem_file_path": "/memory" });
    done(&socket, "PUT", "/snapshot/create", &wish);
    let root = place.root("first");
    assert_eq!(fs::metadata(root.join("memory")).unwrap().uid(), USER);
    place.give(
        "second",
        &[
            (&root.join("state"), "state"),
            (&root.join("memory"), "memory"),
        ],
    );
    let mut second = Running::start(&mut place.jailer("second"));
    let socket = place.socket("second");
    let wish = json!({ "snapshot_path": "/state", "mem_backend": { "backend_type": "File", "backend_path": "/memory" }, "resume_vm": true });
    done(&socket, "PUT", "/snapshot/load", &wish);
    // The rest of the line that the first one was in, then whole ones.
    second.line();
    let line = second.line();
    assert!(line.starts_with("round="), "{line}");
    if !Path::new("/dev/userfaultfd").exists() {
        return println!("SKIPPED: only root may have page faults answered before Linux 6.1");
    }
    // One whose memory is outside, and whose user has no right but to that device.
    place.give("third", &[(&root.join("state"), "state")]);
    let handler = place.root("third").join("handler");
    let pager = Pager::start(&handler, &root.join("memory"), Oddities::default());
    std::os::unix::fs::chown(&handler, Some(USER), Some(GROUP)).unwrap();
    let mut third = Running::start(&mut place.jailer("third"));
    let socket = place.socket("third");
    let wish = json!({ "snapshot_path": "/state", "mem_backend": { "backend_type": "Uffd", "backend_path": "/handler" }, "resume_vm": true });
    done(&socket, "PUT", "/snapshot/load", &wish);
    third.line();
    let line = third.line();
    assert!(line.starts_with("round="), "{line}");
    assert!(pager.answered() > 0);
}

fn nothing() {
    let place = Place::new();
    let text = |words: &[&str]| {
        let output = output(place.jailer("vm").args(words));
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        // Whatever was made has gone again.
        let left: Vec<_> = fs::read_dir(place.base()).unwrap().collect();
        assert!(left.is_empty(), "{words:?}: {left:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (words, part) in [
        (
            &["--netns", "/proc/self/status"][..],
            "--netns is not a network namespace",
        ),
        (&["--netns", "/dev/null"], "not a regular file"),
        (&["--netns", "/nowhere"], "--netns /nowhere"),
        (&["--cgroup", "nosuch.x=1"], "controller nosuch"),
        (
            &["--cgroup-version", "2", "--cgroup", "nosuch.x=1"],
            "version 2",
        ),
        (
            &[
                "--cgroup",
                "pids.max=many",
                "--parent-cgroup",
                "kvmlet-none",
            ],
            "pids.max=many",
        ),
        (
            &["--resource-limit", "no-file=99999999"],
            "--resource-limit no-file=99999999",
        ),
        (&["--", "--module", "m"], "--module is not supported"),
    ] {
        let told = text(words);
        assert!(told.contains(part), "{words:?}: {told}");
    }
    assert!(!Path::new("/sys/fs/cgroup/pids/kvmlet-none").exists());
    let jail = |exec_file: &str, base: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet-serve"));
        command.args([
            "jailer",
            "--id",
            "vm",
            "--exec-file",
            exec_file,
            "--uid",
            "1",
            "--gid",
            "1",
        ]);
        let output = output(command.arg("--chroot-base-dir").arg(base));
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let told = jail("/bin/true", &place.base());
    assert!(
        told.contains("`/bin/true` is not kvmlet") && told.contains("ln -s"),
        "{told}"
    );
    let told = jail(env!("CARGO_BIN_EXE_kvmlet-serve"), Path::new("/nowhere"));
    assert!(told.contains("--chroot-base-dir `/nowhere`"), "{told}");
    // A link that somebody has put where a directory is made leads nowhere.
    fs::create_dir_all(place.root("vm")).unwrap();
    symlink("/etc", place.root("vm").join("dev")).unwrap();
    let told = output(&mut place.jailer("vm"));
    assert_eq!(told.status.code(), Some(1));
    assert_ne!(fs::metadata("/etc").unwrap().uid(), USER);
    // What was there before is its owner's as before.
    let look = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    let root = place.root("vm");
    let chown = |path: &Path, user| std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
    let before = look(&root);
    assert_eq!(before.0, 0);
    fs::remove_file(root.join("dev")).unwrap();
    let told = output(
        place
            .jailer("vm")
            .args(["--resource-limit", "no-file=99999999"]),
    );
    assert_eq!(told.status.code(), Some(1));
    assert_eq!(look(&root), before);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    // Nobody but these users can say what is in there.
    let id = root.parent().unwrap();
    let refused = || {
        let told = output(&mut place.jailer("vm"));
        assert_eq!(told.status.code(), Some(1));
        assert_eq!(look(&root), before);
        String::from_utf8(told.stderr).unwrap()
    };
    chown(id, USER + 7);
    let told = refused();
    assert!(
        told.contains(&format!("belongs to user {}", USER + 7)),
        "{told}"
    );
    chown(id, 0);
    fs::set_permissions(id, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let told = refused();
    assert!(told.contains("everybody may write to"), "{told}");
}
