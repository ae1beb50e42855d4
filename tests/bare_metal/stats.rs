//! `--stats`: where statistics go, and what is never touched.

use crate::cli::{Running, kvmlet, run, text};
use crate::harness::Test;
use crate::harness::patience::eventually;
use crate::hostile::scene::make_device;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

pub const TESTS: &[Test] = &[
    ("statistics_leave_devices_and_other_files_alone", neighbours),
    (
        "statistics_that_cannot_be_written_are_told_at_once",
        refused,
    ),
    ("statistics_leave_a_file_to_its_owner", owner),
    ("statistics_go_to_standard_output", to_standard_output),
    ("statistics_go_to_whoever_reads_a_fifo", to_a_reader),
    ("statistics_that_get_lost_are_no_success", lost),
];

/// With a supervisor that writes, and without one.
const WAYS: [&str; 2] = ["--jail", "--no-jail"];

fn boot(jail: &str, file: &Path) -> Output {
    run(kvmlet("power_off").arg(jail).arg("--stats").arg(file))
}

fn is_snapshot(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(bytes).is_ok_and(|json| json["vcpus"].is_array())
}

fn neighbours() {
    for jail in WAYS {
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str| place.path().join(name);
        fs::write(file("data.new"), "mine").unwrap();
        assert_eq!(boot(jail, &file("data.json")).status.code(), Some(0));
        assert!(is_snapshot(&fs::read(file("data.json")).unwrap()));
        assert_eq!(fs::read(file("data.new")).unwrap(), b"mine");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
        // One that nobody else would miss.
        let null = file("null");
        if let Err(error) = make_device(&null, (1, 3)) {
            eprintln!("SKIPPED: no device can be made: {error}");
            continue;
        }
        let output = boot(jail, &null);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let kind = fs::symlink_metadata(&null).unwrap().file_type();
        assert!(kind.is_char_device(), "it is a device still");
    }
}

/// What root writes into another user's file stays that user's.
fn owner() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    const OWNER: u32 = 23_002;
    for jail in WAYS {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("data.json");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        if chown(&file, Some(OWNER), Some(OWNER)).is_err() {
            return eprintln!("SKIPPED: only root has files of other users");
        }
        let output = boot(jail, &file);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(is_snapshot(&fs::read(&file).unwrap()));
        let data = fs::metadata(&file).unwrap();
        let seen = (data.uid(), data.gid(), data.mode() & 0o7777);
        assert_eq!(seen, (OWNER, OWNER, 0o600), "{jail}");
    }
}

fn refused() {
    for jail in WAYS {
        let place = tempfile::tempdir().unwrap();
        let missing = place.path().join("nowhere/stats.json");
        for (path, parts) in [
            (
                missing.as_path(),
                ["no such file or directory", "make the directory"],
            ),
            (place.path(), ["which is a directory", "standard output"]),
            (
                Path::new("/proc/stats.json"),
                ["cannot write to `/proc/stats.json`", ""],
            ),
        ] {
            let output = boot(jail, path);
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(125), "{message}");
            for part in parts {
                assert!(message.contains(part), "no {part:?} in {message}");
            }
            assert!(output.stdout.is_empty(), "no guest has run");
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}

fn to_standard_output() {
    for jail in WAYS {
        for file in ["-", "/dev/stdout", "/dev/fd/1"] {
            let output = run(kvmlet("ready").arg(jail).args(["--stats", file]));
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let rest = output.stdout.strip_prefix(b"ready\n");
            assert!(rest.is_some_and(is_snapshot), "{output:?}");
        }
        // The console's own file is not replaced under it.
        let place = tempfile::tempdir().unwrap();
        let console = place.path().join("console");
        let status = kvmlet("ready")
            .arg(jail)
            .arg("--stats")
            .arg(&console)
            .stdout(fs::File::create(&console).unwrap())
            .status();
        assert_eq!(status.unwrap().code(), Some(0));
        let written = fs::read(&console).unwrap();
        assert!(written.strip_prefix(b"ready\n").is_some_and(is_snapshot));
    }
}

fn to_a_reader() {
    for jail in WAYS {
        let place = tempfile::tempdir().unwrap();
        let fifo = place.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
        let output = boot(jail, &fifo);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{message}");
        assert!(message.contains("nobody reads the FIFO"), "{message}");
        // As a shell's process substitution has it: the reader is there first, for as long as anybody writes.
        let script = "exec 3> >(cat >\"$1\"); shift; \"$@\" --stats /dev/fd/3 3>&3; code=$?; exec 3>&-; wait; exit $code";
        let copy = place.path().join("copy");
        let inner = kvmlet("ready");
        let output = run(Command::new("bash")
            .args(["-c", script, "bash"])
            .arg(&copy)
            .arg(inner.get_program())
            .args(inner.get_args())
            .arg(jail)
            .stdin(Stdio::null()));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(output.stdout, b"ready\n");
        eventually("the reader has it all", || {
            is_snapshot(&fs::read(&copy).unwrap_or_default())
        });
    }
}

fn lost() {
    for jail in WAYS {
        // Of a guest that ends well the code says so; that of another is not hidden.
        for (guest, code) in [("orders", 125), ("serial_echo", 42)] {
            let place = tempfile::tempdir().unwrap();
            let directory = place.path().join("directory");
            fs::create_dir(&directory).unwrap();
            let mut command = kvmlet(guest);
            command
                .args([jail, "--stats"])
                .arg(directory.join("stats.json"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = Running::spawn(&mut command);
            child.expect_two_bytes();
            fs::remove_dir(&directory).unwrap();
            child.stdin.take().unwrap().write_all(b"q").unwrap();
            let mut message = String::new();
            let mut stderr = child.stderr.take().unwrap();
            stderr.read_to_string(&mut message).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(code), "{message}");
            assert!(message.contains("error: cannot write to `"), "{message}");
        }
    }
}
