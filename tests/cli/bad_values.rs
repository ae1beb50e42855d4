//! Values that no option can have. Each is refused before anything starts, in a message that names it and what would do.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A refusal takes milliseconds; whoever waits for something waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Option, value, and what the message has to say beside the name of what was asked for.
const TEXTS: &[(&str, &str, &[&str])] = &[
    (
        "--hostname",
        "a b/c",
        &["host name", "`a b/c`", "letters, digits, hyphens"],
    ),
    ("--hostname", "", &["host name", "empty"]),
    (
        "--hostname",
        "web_1",
        &["host name", "letters, digits, hyphens"],
    ),
    ("--env", "", &["environment variable", "NAME=VALUE"]),
    ("--env", "=x", &["environment variable", "NAME=VALUE"]),
    ("--env", "A\nB=1", &["environment variable", r"A\nB"]),
    (
        "--workdir",
        "srv",
        &["working directory", "`srv`", "absolute"],
    ),
    ("--workdir", "", &["working directory", "absolute"]),
    ("--cmdline", "a\nb", &["command line", "line break"]),
    ("--cmdline", "\u{7}", &["command line", "control character"]),
    (
        "--memory",
        "512",
        &["512 bytes", "a number without a unit is bytes: write 512M"],
    ),
    ("--cpus", "0", &["0 vCPUs", "1 to 254"]),
    ("--cpus", "-1", &["--cpus", "1 to 254"]),
    (
        "--cpus",
        "1.5",
        &[
            "1 to 254",
            "docker's `--cpus 1.5` is `--cpu-quota 1.5` here",
        ],
    ),
    ("--disk", "a,read_only", &["did you mean `ro`?"]),
    ("--disk", "a,b.img", &["written twice: `a,,b.img`"]),
    ("--cpus", "", &["--cpus", "1 to 254"]),
    ("--cpus", "99999999999999999999", &["--cpus", "1 to 254"]),
    ("--memory", "", &["--memory", "512M"]),
    ("--memory", "-1", &["--memory", "512M"]),
    ("--memory", "99999999999999999999G", &["--memory", "512M"]),
    ("--memory", "512\u{7}M", &["--memory", "512M"]),
    ("--cpu-quota", "-1", &["--cpu-quota", "0.5"]),
    ("--cpu-quota", "NaN", &["--cpu-quota", "0.5"]),
    ("--cpu-quota", "1e3", &["--cpu-quota", "0.5"]),
    ("--cpu-weight", "-5", &["--cpu-weight", "1 to 10000"]),
    ("--cpu-weight", "0", &["--cpu-weight", "1 to 10000"]),
    ("--cpuset", "", &["--cpuset", "0,2-3"]),
    ("--cpuset", "3-1", &["--cpuset"]),
    ("--cpuset", "99999", &["--cpuset", "0 to 8191"]),
    (
        "--cpu-mask",
        "",
        &["--cpu-mask", "no CPUID bit", "/proc/cpuinfo"],
    ),
    (
        "--cpu-mask",
        "foo",
        &["--cpu-mask", "`foo`", "/proc/cpuinfo"],
    ),
    ("--memory", "-5M", &["--memory", "`-5M`", "512M"]),
    ("--cpu-mask", "cx61", &["--cpu-mask", "`cx16`"]),
    ("--overcommit", "", &["--overcommit", "1.5"]),
    (
        "--overcommit",
        "cpus=-1",
        &["--overcommit", "0.001 to 1000"],
    ),
    ("--overcommit", "disk=1", &["--overcommit", "cpus, memory"]),
    ("--cgroup-parent", "", &["--cgroup-parent", "/tenants/a"]),
    ("--cgroup-parent", "/a/../b", &["--cgroup-parent", "`..`"]),
    ("--disk", "", &["--disk", "path"]),
    ("--disk", "a,readonly", &["--disk", "did you mean `ro`?"]),
    (
        "--disk",
        "a,xyz=1",
        &["--disk", "`xyz`", "known are path, ro"],
    ),
    ("--disk", "a,iosp=1", &["--disk", "did you mean `iops`?"]),
    ("--disk", "a,queues=-1", &["--disk", "a whole number"]),
    ("--disk", "a,id=a\nb", &["--disk", "printable"]),
    (
        "--disk",
        "a,bandwidth=99999999999999999999G",
        &["--disk", "10M"],
    ),
    ("--net", "tap=", &["--net", "interface"]),
    ("--net", "tap=a/b", &["--net", "interface"]),
    (
        "--net",
        "mac=01:00:00:00:00:00",
        &["--net", "02:00:00:12:34:56"],
    ),
    ("--net", "mtu=1", &["--net", "68 to 65521"]),
    ("--net", "rx-bandwith=1M", &["--net", "`rx-bandwidth`"]),
    ("--balloon", "size=-1", &["--balloon", "512K"]),
    ("--balloon", "reporting=maybe", &["--balloon", "on or off"]),
    ("--publish", "", &["--publish", "GUEST"]),
    ("--publish", "99999:80", &["--publish", "65535"]),
    ("--dns", "", &["--dns", "9.9.9.9"]),
    ("--dns", "resolver", &["--dns", "`resolver`", "9.9.9.9"]),
    ("--dns", "0.0.0.0", &["0.0.0.0", "name server"]),
    ("--huge-pages", "", &["--huge-pages", "transparent"]),
    ("--huge-pages", "big", &["--huge-pages", "transparent"]),
    ("--memory-mode", "mine", &["--memory-mode", "reserved"]),
    ("--cpu-scope", "all", &["--cpu-scope", "vcpus"]),
    ("--stop-timeout", "-1", &["--stop-timeout", "seconds"]),
    ("--stop-timeout", "1.5", &["--stop-timeout", "seconds"]),
    ("--kernel", "", &["--kernel"]),
    ("--root", "", &["--root"]),
];

#[test]
fn texts_that_cannot_be_are_refused_by_name() {
    for (option, value, parts) in TEXTS {
        let arguments = [OsStr::new(option), OsStr::new(value)];
        expect_refusal(&with_kernel(&arguments), parts);
    }
    let long = "x".repeat(300);
    expect_refusal(
        &with_kernel(&["--hostname", &long].map(OsStr::new)),
        &["host name", "64"],
    );
    expect_refusal(
        &with_kernel(&["--", ""].map(OsStr::new)),
        &["the command", "empty name"],
    );
}

#[test]
fn bytes_that_are_not_text_are_refused_by_name() {
    let bytes = OsStr::from_bytes(b"a\xff");
    for option in [
        "--hostname",
        "--env",
        "--workdir",
        "--cmdline",
        "--net",
        "--memory",
        "--disk",
    ] {
        let arguments = [OsStr::new(option), bytes];
        expect_refusal(&with_kernel(&arguments), &[r#""a\xFF""#, "not UTF-8"]);
    }
    expect_refusal(
        &with_kernel(&[OsStr::new("--"), bytes]),
        &[r#""a\xFF""#, "not UTF-8"],
    );
    let mut command = with_kernel(&["--env", "SECRET"].map(OsStr::new));
    command.env("SECRET", bytes);
    expect_refusal(
        &command,
        &["`SECRET`", "not UTF-8", "help: ", "--env SECRET=VALUE"],
    );
}

/// Directories, FIFOs and devices where files are expected. A FIFO that nobody writes to keeps nobody waiting.
#[test]
fn paths_of_what_is_no_file_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    let made = rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into());
    made.unwrap();
    for path in [
        directory.path(),
        &fifo,
        Path::new("/dev/zero"),
        Path::new("/nowhere/at all"),
    ] {
        let name = path.to_str().unwrap();
        expect_refusal(
            &boot(&["--kernel".as_ref(), path.as_os_str()]),
            &["kernel", name],
        );
        for option in ["--initrd", "--disk", "--root"] {
            let arguments = [OsStr::new(option), path.as_os_str()];
            expect_refusal(&with_kernel(&arguments), &[name]);
        }
        if path != fifo {
            // This one may be a FIFO: `--config <(make-config)`.
            expect_refusal(
                &boot(&["--config".as_ref(), path.as_os_str()]),
                &["configuration", name],
            );
        }
    }
    let binary = directory.path().join("binary");
    std::fs::write(&binary, b"{\"kernel\": \"\xff\"}").unwrap();
    let arguments = ["--config".as_ref(), binary.as_os_str()];
    expect_refusal(&boot(&arguments), &["binary", "not UTF-8", "help: "]);
}

#[test]
fn values_of_json_are_refused_by_their_keys() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vm.json");
    for (json, parts) in [
        ("[]", &["an object with keys"][..]),
        ("null", &["an object with keys"]),
        ("7", &["an object with keys"]),
        (
            r#"{"disks": [["a.img"]]}"#,
            &["`disks[0]`", "an object with keys"],
        ),
        (r#"{"disks": {"path": "a"}}"#, &["`disks`", "a list"]),
        (r#"{"vcpus": 1, "vcpus": 2}"#, &["`vcpus` stands twice"]),
        (r#"{"cpus": 1}"#, &["did you mean `vcpus`?"]),
        (r#"{"vcpus": "two"}"#, &["`vcpus`", "line 1"]),
        (r#"{"vcpus": -1}"#, &["`vcpus`", "`-1`"]),
        (r#"{"vcpus": 1e400}"#, &["`vcpus`", "too large"]),
        (r#"{"memory": null, "kernel": 5}"#, &["`kernel`", "`5`"]),
        (r#"{"kernel": "\u0000"}"#, &["the kernel", "NUL"]),
        (r#"{"hostname": "a b"}"#, &["host name"]),
        (r#"{"env": {"A": 5}}"#, &["`env.A`", "text in quotes"]),
        (
            r#"{"nets": [{"mtu": 5}]}"#,
            &["`nets[0].mtu`", "68 to 65521"],
        ),
        (
            r#"{"prefault": "yes"}"#,
            &["`prefault`", "`true` or `false`"],
        ),
    ] {
        std::fs::write(&path, json).unwrap();
        let arguments = ["--config".as_ref(), path.as_os_str()];
        expect_refusal(&boot(&arguments), parts);
    }
    for (json, help) in [
        ("kernel: k", r#"{"kernel": "vmlinux""#),
        (r#"{"kernel": 7}"#, "docs/reference.md"),
    ] {
        std::fs::write(&path, json).unwrap();
        let arguments = ["--config".as_ref(), path.as_os_str()];
        expect_refusal(&boot(&arguments), &["vm.json", "help: ", help]);
    }
    // Standard input is none of these tests'.
    expect_refusal(
        &boot(&["--config", "-"].map(OsStr::new)),
        &["configuration on standard input", "nothing in it"],
    );
    let arguments = ["--config", "nowhere.json"].map(OsStr::new);
    expect_refusal(&boot(&arguments), &["nowhere.json", "`-` for standard"]);
    let deep = "[".repeat(100_000);
    std::fs::write(&path, format!(r#"{{"disks": {deep}"#)).unwrap();
    expect_refusal(
        &boot(&["--config".as_ref(), path.as_os_str()]),
        &["vm.json"],
    );
}

/// What only one device can have.
#[test]
fn what_stands_twice_is_refused() {
    for (arguments, parts) in [
        (
            ["--disk", "a,id=x", "--disk", "b,id=x"],
            ["two disks", "`id` x"],
        ),
        (["--disk", "a", "--disk", "a"], ["`a`", "named twice"]),
        (
            ["--net", "tap=t0", "--net", "t0"],
            ["two interfaces", "`tap` t0"],
        ),
    ] {
        expect_refusal(&with_kernel(&arguments.map(OsStr::new)), &parts);
    }
}

/// What an empty file lacks depends on what it is for.
#[test]
fn empty_files_are_refused_with_what_makes_them_full() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("empty");
    std::fs::write(&path, b"").unwrap();
    for (option, help) in [("--root", "mkfs.erofs"), ("--disk", "truncate -s 1G")] {
        let arguments = [OsStr::new(option), path.as_os_str()];
        expect_refusal(&with_kernel(&arguments), &["0 bytes", help]);
    }
}

fn boot(arguments: &[&OsStr]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvmlet"));
    command.arg("boot").args(arguments);
    command
}

/// The kernel is a program, which is looked at after all else and would be refused as one.
fn with_kernel(arguments: &[&OsStr]) -> Command {
    let kernel = [
        "--kernel".as_ref(),
        OsStr::new(env!("CARGO_BIN_EXE_kvmlet")),
    ];
    let named = arguments
        .first()
        .is_some_and(|option| *option == "--kernel");
    boot(&[if named { &[][..] } else { &kernel }, arguments].concat())
}

fn expect_refusal(command: &Command, parts: &[&str]) {
    let arguments: Vec<OsString> = command.get_args().map(OsStr::to_owned).collect();
    let mut again = Command::new(command.get_program());
    again
        .args(&arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    again.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let mut child = Killed(again.stderr(Stdio::piped()).spawn().unwrap());
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "{arguments:?}: it waits");
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut message = String::new();
    child
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut message)
        .unwrap();
    assert!(
        status.code() == Some(125),
        "{arguments:?}: {status}: {message}"
    );
    assert!(message.starts_with("error: "), "{arguments:?}: {message}");
    for part in parts {
        assert!(
            message.contains(part),
            "{arguments:?}: no {part:?} in {message}"
        );
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
