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

/// Tells the time, and goes on with its disk, until it is asked to end.
const SERVICE: &str = "trap 'echo asked; exit 9' TERM; dmesg -n 6; i=0; while :; do i=$((i+1)); \
    echo \"now=$(date +%s) up=$(cut -d. -f1 /proc/uptime) cpus=$(nproc)\"; \
    echo $i | dd of=/dev/vda conv=sync,fsync 2>/dev/null && dd if=/dev/vda count=1 2>/dev/null | tr -d '\\0' | \
    grep -qx $i && echo disk=$i; sleep 1; done";

/// How long the VM is away.
const AWAY: Duration = Duration::from_secs(4);

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
    let (disk, copy, saved) = (file("disk"), file("copy"), file("saved"));
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
    guest.wait_for("disk=1");
    let (_, before) = guest.times();
    let mut snapshot = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    let snapshot = snapshot.args(["snapshot", &control, &saved]).status();
    assert!(snapshot.unwrap().success());
    drop(guest);
    std::fs::copy(&disk, &copy).unwrap();
    std::thread::sleep(AWAY);
    let words = ["restore", &saved, "--disk", &copy, "--vsock", &second];
    let mut guest = Guest::spawn(&words, None);
    // What it had begun to say has the time of then.
    guest.wait_for("disk=");
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
