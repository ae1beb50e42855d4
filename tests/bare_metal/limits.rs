//! The limits of whoever starts a VM (setrlimit(2)): what they keep it from is told, and no start waits for ever.

use crate::cli::{Running, kvmlet, run, text};
use crate::harness::{Test, patience::eventually, program};
use crate::stop::KINDS;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

pub const TESTS: &[Test] = &[
    ("a_limit_of_files_is_told_and_no_end_without_a_word", files),
    (
        "a_limit_of_processes_is_told_and_keeps_nobody_waiting",
        processes,
    ),
    ("a_limit_of_cpu_time_is_told", cpu_time),
];

/// On how large they are, and on how many are open.
fn files() {
    let with = |limit: &str, arguments: &[&str]| {
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("{limit}; exec \"$@\""), "limited"])
            .args([env!("CARGO_BIN_EXE_kvmlet"), "boot", "--kernel"])
            .arg(program("ready"))
            .args(arguments)
            .stdin(Stdio::null());
        let output = run(&mut command);
        (output.status.code(), text(&output.stderr))
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("stats.json");
    let (code, message) = with("ulimit -f 0", &["--stats", file.to_str().unwrap()]);
    assert_eq!(code, Some(125), "{message}");
    assert!(message.contains("caused by: file too large"), "{message}");
    for most in [4, 8, 12] {
        let (code, message) = with(&format!("ulimit -n {most}"), &[]);
        assert_eq!(code, Some(125), "{message}");
        // What each C library calls it.
        let says = |part| message.contains(part);
        let is_named = says("oo many open files") || says("o file descriptors available");
        let is_helped = says("\n  help: ") && says("`ulimit -n`");
        assert!(is_named && is_helped, "{most}: {message}");
    }
}

/// A user that has no other process, and whom limits hold.
const USER: &str = "23007";

/// What the host gives one by one: processes, threads, and the one that KVM starts for itself.
fn processes() {
    let script = "mount -t tmpfs -o mode=755 tmpfs /mnt && mkdir /mnt/b && mknod /mnt/kvm c 10 232 && chmod 666 /mnt/kvm \
                  && mount --bind /mnt/kvm /dev/kvm && cp \"$1\" /mnt/b/kvmlet && cp \"$2\" /mnt/b/guest \
                  && chmod 755 /mnt/b/* && shift 2 && cd / && exec setpriv --reuid \"$USER\" --regid \"$USER\" \
                  --clear-groups -- prlimit --nproc=\"$MOST\" -- /mnt/b/kvmlet boot --kernel /mnt/b/guest \"$@\"";
    for arguments in KINDS {
        let mut ready = 0;
        for most in 1..=8 {
            let mut command = Command::new("unshare");
            command
                .args([
                    "--mount",
                    "sh",
                    "-c",
                    script,
                    "sh",
                    env!("CARGO_BIN_EXE_kvmlet"),
                ])
                .arg(program("ready"))
                .args(arguments)
                .env("USER", USER)
                .env("MOST", most.to_string());
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = Running::spawn(&mut command);
            eventually("it ends", || child.try_wait().unwrap().is_some());
            let mut said = [String::new(), String::new()];
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_to_string(&mut said[0])
                .unwrap();
            child
                .stderr
                .as_mut()
                .unwrap()
                .read_to_string(&mut said[1])
                .unwrap();
            let [console, message] = said;
            match child.wait().unwrap().code() {
                Some(0) => {
                    assert_eq!(console, "ready\n", "{most}: {message}");
                    ready += 1;
                }
                code => {
                    assert_eq!(code, Some(125), "{most}: {message}");
                    assert!(message.contains("`ulimit -u`"), "{most}: {message}");
                }
            }
        }
        assert!((1..8).contains(&ready), "{arguments:?}: {ready}");
    }
}

fn cpu_time() {
    let mut command = kvmlet("spin");
    command.args(["--cmdline", "period=0"]);
    // SAFETY: the child calls what may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit {
                rlim_cur: 1,
                rlim_max: 1,
            };
            libc::setrlimit(libc::RLIMIT_CPU, &limit);
            Ok(())
        });
    }
    let output = run(&mut command);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(137), "{message}");
    for part in ["killed by signal 9", "limited to 1 s", "`ulimit -t`"] {
        assert!(message.contains(part), "{message}");
    }
}
