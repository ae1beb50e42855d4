//! Signals that end `kvmlet boot` while it starts, runs and ends, and while it waits for others.

use crate::cli::{Running, kill, kvmlet};
use crate::harness::patience::{self, eventually};
use crate::harness::{Test, has_ended, program};
use crate::ports::on_own_host;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("a_signal_ends_a_vm_at_any_instant", any_instant),
    ("a_signal_ends_the_wait_for_a_lock", locks),
    ("a_signal_ends_the_wait_for_a_turn", turn),
    (
        "a_signal_ends_a_start_from_files_that_do_not_answer",
        hanging_files,
    ),
    ("a_signal_ends_a_start_that_takes_memory", memory),
    ("a_signal_ends_the_making_of_a_disk", disk),
    ("files_that_wait_for_others_are_refused", waiting_files),
];

/// What the end of a VM may take that hears nothing, on a machine that is busy.
fn prompt() -> Duration {
    patience::seconds(5)
}

/// How many signals are sent at random instants, unless this environment variable has another number.
const INSTANTS: &str = "KVMLET_INSTANTS";
const USUAL: u64 = 200;

/// Has the process ended as one that a signal has ended, by itself or not?
fn is_ended_by(status: ExitStatus, signal: i32) -> bool {
    status.code() == Some(128 + signal) || status.signal() == Some(signal)
}

/// Numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What a host has of VMs.
fn left(pid: u32) -> Vec<String> {
    let lines = |command: &mut Command| {
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(String::from).collect::<Vec<_>>()
    };
    let mut left = lines(Command::new("ip").args(["-o", "link"]));
    left.retain(|line| line.contains("kvmlet"));
    let cgroup = format!("kvmlet-{pid}-*");
    left.extend(lines(Command::new("find").args([
        "/sys/fs/cgroup",
        "-type",
        "d",
        "-name",
        &cgroup,
    ])));
    left.extend(lines(Command::new("find").args([
        "/run/kvmlet",
        "-name",
        "*.claim",
    ])));
    left.extend(lines(Command::new("nft").args(["list", "tables"])));
    left
}

fn any_instant() {
    on_own_host(|| {
        let count = std::env::var(INSTANTS)
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = u64::from(std::process::id()) << 20 | 1;
        println!("seed {seed}");
        let mut random = Random(seed);
        let image = crate::virtio::image();
        let disk = image.path().to_str().unwrap();
        let kinds: [(&str, &[&str]); 7] = [
            ("spin", &[]),
            ("spin", &["--net", "-p", "8080:80"]),
            ("spin", &["--cpu-quota", "0.5"]),
            ("spin", &["--no-jail", "-p", "8080:80"]),
            ("spin", &["--no-jail", "--disk", disk]),
            (
                "spin",
                &["--cpu-quota", "0.5", "-p", "8080:80", "--disk", disk],
            ),
            ("power_off", &["-p", "8080:80", "--cmdline", "code=7"]),
        ];
        let mut worst = Duration::ZERO;
        for number in 0..count.unwrap_or(USUAL) {
            let (guest, arguments) = kinds[random.below(kinds.len() as u64) as usize];
            let signal = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP][random.below(3) as usize];
            let delay = Duration::from_micros(random.below(100_000));
            let context =
                format!("{number} {guest} {arguments:?} {signal} {delay:?} (seed {seed})");
            let mut command = kvmlet(guest);
            command
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = Running::spawn(&mut command);
            let pid = child.id();
            std::thread::sleep(delay);
            kill(pid as i32, signal);
            let since = Instant::now();
            let status = child.wait().unwrap();
            let took = since.elapsed();
            worst = worst.max(took);
            let mut said = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut said)
                .unwrap();
            // It ends when the last process has that could write there.
            let _ = child.stdout.take().unwrap().read_to_end(&mut Vec::new());
            assert!(took < prompt(), "{context}: {took:?}: {said}");
            let by_itself = guest == "power_off" && status.code() == Some(7);
            assert!(
                is_ended_by(status, signal) || by_itself,
                "{context}: {status}: {said}"
            );
            assert!(!said.contains("error"), "{context}: {said}");
            // One process that may be killed anywhere leaves its note to the next.
            let note = arguments.first() == Some(&"--no-jail") && !arguments.contains(&"-p");
            let own = format!("ledger/kvmlet-{pid}-");
            eventually(&format!("{context}: nothing is left, {said}"), || {
                let mut left = left(pid);
                left.retain(|line| !line.contains("ledger") || !note && line.contains(&own));
                left.is_empty()
            });
        }
        println!("the longest took {worst:?}");
    });
}

/// A VM that waits, with what it has said of that.
fn waiting(arguments: &[&str], what: &str) -> (Running, String) {
    let mut command = kvmlet("spin");
    let mut child = Running::spawn(command.args(arguments).stderr(Stdio::piped()));
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(what) {
        line.clear();
        assert!(
            lines.read_line(&mut line).unwrap() > 0,
            "it does not wait: {what}"
        );
    }
    std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
    (child, line)
}

fn ends_at_once(mut child: Running, signal: i32) {
    let since = Instant::now();
    kill(child.id() as i32, signal);
    let status = child.wait().unwrap();
    assert!(is_ended_by(status, signal), "{status}");
    assert!(since.elapsed() < prompt(), "{:?}", since.elapsed());
}

/// A VM has run, so all directories are there.
fn once() {
    let status = kvmlet("power_off").args(["--net"]).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

fn locks() {
    on_own_host(|| {
        once();
        for (place, arguments) in [
            ("ledger", &[][..]),
            ("ledger", &["--no-jail"]),
            ("ledger", &["--best-effort"]),
            ("net", &["--net"]),
            ("net", &["--net", "--no-jail"]),
        ] {
            let lock = File::open(format!("/run/kvmlet/{place}/lock")).unwrap();
            flock(&lock, FlockOperation::LockExclusive).unwrap();
            for signal in [libc::SIGTERM, libc::SIGINT] {
                let (child, line) = waiting(arguments, "waiting for the lock");
                let holder = format!("process {}", std::process::id());
                assert!(line.contains(&holder) && line.contains(place), "{line}");
                let pid = child.id();
                ends_at_once(child, signal);
                assert_eq!(left(pid), [] as [String; 0], "{place} {arguments:?}");
            }
        }
        // At the end nobody waits: what there is to be cleared is when others have let go of the lock.
        let mut command = kvmlet("spin");
        let mut child = Running::spawn(command.arg("--net").stdout(Stdio::piped()));
        child.expect_two_bytes();
        let lock = File::open("/run/kvmlet/net/lock").unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let pid = child.id();
        ends_at_once(child, libc::SIGTERM);
        std::thread::sleep(Duration::from_millis(300));
        assert!(!left(pid).is_empty());
        drop(lock);
        eventually("its network is cleared", || left(pid).is_empty());
    });
}

fn turn() {
    on_own_host(|| {
        once();
        use rustix::net::{
            AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with,
        };
        // Not the children's as well: one of them would be named instead, if its number is the lower one.
        let (family, kind) = (AddressFamily::UNIX, SocketType::DGRAM);
        let holder = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        let name = SocketAddrUnix::new_abstract_name(b"kvmlet/networks").unwrap();
        bind(&holder, &name).unwrap();
        let (child, line) = waiting(&["--net"], "waiting for");
        let who = format!("process {}", std::process::id());
        assert!(line.contains(&who), "{line}");
        let pid = child.id();
        ends_at_once(child, libc::SIGTERM);
        assert_eq!(left(pid), [] as [String; 0]);
        // Nobody is kept from a start for good.
        once();
    });
}

/// A file system whose server never answers: whoever looks for a file there waits.
fn hang(at: &Path) -> File {
    let fuse = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .unwrap();
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        fuse.as_raw_fd()
    );
    let text = |text: &str| std::ffi::CString::new(text).unwrap();
    let (source, kind, options) = (text("hang"), text("fuse"), text(&options));
    let at = text(at.to_str().unwrap());
    // SAFETY: all strings end with a zero, and the kernel copies them.
    let result = unsafe {
        let data = options.as_ptr().cast();
        libc::mount(source.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, data)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    fuse
}

fn hanging_files() {
    on_own_host(|| {
        if !Path::new("/dev/fuse").exists() {
            return println!("SKIPPED: there is no /dev/fuse");
        }
        once();
        let place = tempfile::tempdir().unwrap();
        let _fuse = hang(place.path());
        let file = place.path().join("file");
        let file = file.to_str().unwrap();
        let root = crate::virtio::image();
        let root = root.path().to_str().unwrap();
        for jail in [&[][..], &["--no-jail"], &["--net", "--cpu-quota", "0.5"]] {
            for arguments in [
                &["--kernel", file][..],
                &["--initrd", file],
                &["--disk", file],
                &["--root", file],
                &["--root", root, "--scratch", &format!("{file},size=64M")],
                &["--config", file],
                &["--stats", file],
            ] {
                let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
                command.arg("boot");
                if arguments[0] != "--kernel" {
                    command.arg("--kernel").arg(program("spin"));
                }
                command.args(arguments).args(jail).stdout(Stdio::null());
                let child = Running::spawn(command.stdin(Stdio::null()));
                std::thread::sleep(Duration::from_millis(300));
                let pid = child.id();
                ends_at_once(child, libc::SIGTERM);
                eventually(&format!("{arguments:?} {jail:?}: nothing is left"), || {
                    let mut left = left(pid);
                    left.retain(|line| !(jail == ["--no-jail"] && line.contains("ledger")));
                    left.is_empty()
                });
            }
        }
    });
}

fn memory() {
    on_own_host(|| {
        let bytes = kvmlet_host::available_memory_bytes() / 3;
        let memory = format!("{}M", bytes.min(6 << 30) >> 20);
        for jail in [&[][..], &["--no-jail"]] {
            for delay in [60, 150, 400] {
                let mut command = kvmlet("spin");
                command.args(["--prefault", "--memory", &memory]).args(jail);
                let child = Running::spawn(command.stdout(Stdio::null()));
                std::thread::sleep(Duration::from_millis(delay));
                ends_at_once(child, libc::SIGTERM);
            }
        }
    });
}

/// A program in the place of mke2fs that takes its time.
fn disk() {
    on_own_host(|| {
        let Some(maker) = ["/usr/sbin/mke2fs", "/sbin/mke2fs"]
            .into_iter()
            .find(|path| Path::new(path).exists())
        else {
            return println!("SKIPPED: there is no mke2fs");
        };
        let place = tempfile::tempdir().unwrap();
        let slow = place.path().join("slow");
        fs::write(&slow, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        let script = "chmod 755 $1 && mount --bind $1 $2";
        let bind = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&slow)
            .arg(maker)
            .status();
        assert!(bind.unwrap().success());
        let root = crate::virtio::image();
        for jail in [&[][..], &["--no-jail"]] {
            let scratch = place.path().join("scratch");
            let mut command = kvmlet("spin");
            command.arg("--root").arg(root.path()).args(jail);
            command
                .arg("--scratch")
                .arg(format!("{},size=64M", scratch.display()));
            let child = Running::spawn(&mut command);
            let pid = child.id();
            let children = format!("/proc/{pid}/task/{pid}/children");
            let maker = || {
                fs::read_to_string(&children)
                    .unwrap()
                    .trim()
                    .parse::<i32>()
                    .ok()
            };
            eventually("the disk is being made", || maker().is_some());
            let maker = maker().unwrap();
            ends_at_once(child, libc::SIGTERM);
            assert!(has_ended(maker as u32));
            assert_eq!(left(pid), [] as [String; 0]);
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        }
    });
}

fn waiting_files() {
    let place = tempfile::tempdir().unwrap();
    let fifo = place.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let fifo = fifo.to_str().unwrap();
    let root = place.path().join("root");
    kvmlet_vmm::disk::make_ext4(&root, 64 << 20).unwrap();
    let root = root.to_str().unwrap();
    for arguments in [
        &["--initrd", fifo][..],
        &["--disk", fifo],
        &["--disk", &format!("{fifo},ro")],
        &["--root", fifo],
        &["--root", root, "--scratch", fifo],
        &["--root", root, "--scratch", &format!("{fifo},size=64M")],
        &["--stats", fifo],
    ] {
        let output = kvmlet("spin").args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {said}");
        assert!(said.contains(fifo), "{arguments:?}: {said}");
    }
}
