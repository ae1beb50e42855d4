//! The scripts that people start first: what they say while they work, and of what is missing.

use std::process::{Command, Output, Stdio};

const STEPS: &str = include_str!("../../images/steps.sh");
const NEED: &str = include_str!("../../images/need.sh");

/// Runs bash with `words` before it, if any, on a script that begins with `library`.
fn bash(words: &[&str], library: &str, script: &str) -> Output {
    let mut words = [words, &["bash", "-c"]].concat();
    let mut command = Command::new(words.remove(0));
    let script = format!("set -euo pipefail\n{library}\n{script}");
    command.args(words).arg(script).stdin(Stdio::null());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn in_a_pipe_each_step_is_a_line_with_its_duration() {
    let output = bash(&[], STEPS, "told 'first' true; told 'second' sleep 1");
    let text = said(&output);
    let lines: Vec<&str> = text.lines().collect();
    let [first, done, second, last] = lines[..] else {
        panic!("{text}")
    };
    assert_eq!((first, second), ("== first", "== second"));
    assert!(done.starts_with("first: done in 0:0"), "{text}");
    assert!(
        last.starts_with("second: done in 0:0") && last != "second: done in 0:00",
        "{text}"
    );
}

#[test]
fn a_step_with_a_log_ends_with_what_it_said_when_it_fails() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let script = format!(
        "log={}\nstep 'good' echo hidden\nstep 'bad' ls /nowhere/at/all\necho no",
        log.display()
    );
    let output = bash(&["env", "LC_ALL=C"], STEPS, &script);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty());
    assert!(text.contains("good: done in 0:0"), "{text}");
    assert!(
        text.contains("/nowhere/at/all") && text.contains("error: bad failed"),
        "{text}"
    );
    assert!(!text.contains("bad: done"), "{text}");
}

#[test]
fn what_cannot_be_installed_is_named_all_at_once() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: this user may be one who may use sudo, who then would install them");
        return;
    }
    let user = &[
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ];
    let output = bash(
        user,
        NEED,
        "need bash:bash no-such-a:package-a no-such-b:package-b",
    );
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.starts_with("error: packages are missing: package-a package-b\n"),
        "{text}"
    );
    assert!(
        text.contains("help: as root: apt-get install package-a package-b"),
        "{text}"
    );
    // What is there is not asked for.
    assert!(bash(user, NEED, "need bash:bash").status.success());
}
