//! A Linux guest that goes on from a snapshot.

use crate::DEADLINE;
use crate::harness::{Test, control::with_control};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const TESTS: &[Test] = &[("a_linux_guest_goes_on_from_a_snapshot", goes_on)];

/// Tells the time, and works on its disk; looks at the clock until that has jumped, and tells the first random numbers that it
/// takes then, which takes a few instructions and no other process; goes on as at first, until it is asked to end.
const SERVICE: &str = "trap 'echo asked; exit 9' TERM; dmesg -n 6; i=0; \
    work() { i=$((i+1)); echo \"now=$(date +%s) up=$(cut -d. -f1 /proc/uptime) cpus=$(nproc)\"; \
    echo $i | dd of=/dev/vda conv=sync,fsync 2>/dev/null && dd if=/dev/vda count=1 2>/dev/null | tr -d '\\0' | \
    grep -qx $i && echo disk=$i; }; work; read -r was _ </proc/uptime; echo quiet=; \
    while read -r up _ </proc/uptime && [ ${up%.*} -lt $((${was%.*}+5)) ]; do was=$up; done; \
    read -r id </proc/sys/kernel/random/uuid; echo uuid=$id; grep PLT /proc/interrupts; \
    while :; do work; sleep 1; done";

/// How long the VM is away.
const AWAY: Duration = Duration::from_secs(8);

struct Guest {
    vm: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Guest {
    fn spawn(words: &[&str], control: Option<&Path>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
        command.arg(words[0]);
        if let Some(path) = control {
            with_control(&mut command, UnixListener::bind(path).unwrap().into());
        }
        command.args(&words[1..]).stdin(Stdio::null());
        let mut vm = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(vm.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            lines.map_while(|line| tell.send(line).ok()).for_each(drop);
        });
        let said = Vec::new();
        Self { vm, lines, said }
    }

    /// The rest of the next line with that in it.
    fn wait_for(&mut self, key: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(DEADLINE) else {
                panic!("no {key} in {:#?}", self.said);
            };
            self.said.push(line.trim_end().to_owned());
            if let Some((_, rest)) = line.trim_end().split_once(key) {
                return rest.to_owned();
            }
        }
    }

    /// Its time of day, and since its start, in seconds.
    fn times(&mut self) -> (u64, u64) {
        let line = self.wait_for("now=");
        let (now, rest) = line.split_once(" up=").expect(&line);
        let (up, cpus) = rest.split_once(" cpus=").expect(&line);
        assert_eq!(cpus, "2", "{line}");
        (now.parse().unwrap(), up.parse().unwrap())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.vm.kill();
        let _ = self.vm.wait();
    }
}

fn goes_on() {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let (disk, saved) = (file("disk"), file("saved"));
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    let (control, first, second) = (file("control"), file("first"), file("second"));
    let words = [
        "boot",
        "--cpus",
        "2",
        "--memory",
        "96M",
        "--disk",
        &disk,
        "--vsock",
        &first,
        "--balloon",
        "--",
        "sh",
        "-c",
        SERVICE,
    ];
    let mut guest = Guest::spawn(&words, Some(Path::new(&control)));
    let (_, before) = guest.times();
    guest.wait_for("disk=1");
    guest.wait_for("quiet=");
    let mut snapshot = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    let snapshot = snapshot.args(["snapshot", &control, &saved]).status();
    assert!(snapshot.unwrap().success());
    drop(guest);
    std::thread::sleep(AWAY);
    // Two go on from it, one after the other, and each has random numbers of its own from the beginning.
    let restore = |name: &str| {
        let copy = file(name);
        std::fs::copy(&disk, &copy).unwrap();
        let words = ["restore", &saved, "--disk", &copy, "--vsock", &second];
        let mut guest = Guest::spawn(&words, None);
        let id = guest.wait_for("uuid=");
        // Each of its CPUs has heard of it once.
        let heard = guest.wait_for("PLT:");
        let heard: Vec<_> = heard.split_whitespace().take(2).collect();
        assert_eq!(heard, ["1", "1"], "{:#?}", guest.said);
        (guest, id)
    };
    let (other, first) = restore("copy");
    drop(other);
    std::fs::remove_file(&second).unwrap();
    let (mut guest, next) = restore("another");
    assert_ne!(first, next);
    let (now, up) = guest.times();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(since.as_secs().abs_diff(now) < 20, "{now} {since:?}");
    assert!(up >= before + AWAY.as_secs(), "{before} {up}");
    (0..3).for_each(|_| drop(guest.wait_for("disk=")));
    // The power button, PID 1 and its exit code.
    // SAFETY: the child has not been waited for, so the number is its own.
    unsafe { libc::kill(guest.vm.id() as i32, libc::SIGTERM) };
    guest.wait_for("asked");
    assert_eq!(guest.vm.wait().unwrap().code(), Some(9));
    let log = guest.said.join("\n");
    for fault in ["lockup", "unstable", "stall", "BUG", "WARNING"] {
        assert!(!log.contains(fault), "{log}");
    }
}
