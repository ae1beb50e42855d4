//! Results that cannot be written.

use std::fs::File;
use std::io;
use std::process::{Command, Output, Stdio};

/// Verbs that print something, whatever there is.
const VERBS: &[&[&str]] = &[
    &["--help"],
    &["help", "boot"],
    &["boot", "--help"],
    &["--version"],
    &["ps", "-a"],
    &["stats", "--no-stream"],
    &["snapshot", "ls"],
    &["volume", "ls"],
    &["pool", "ls"],
    &["man", "boot"],
    &["completions", "bash"],
    &["doctor"],
];

fn with_output(arguments: &[&str], script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" {script}")]);
    command.arg(env!("CARGO_BIN_EXE_kvmlet")).args(arguments);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    for arguments in VERBS {
        for (script, why) in [
            (">&-", "bad file descriptor"),
            (">/dev/full", "no space left on device"),
        ] {
            let output = with_output(arguments, script).output().unwrap();
            let said = said(&output);
            let code = output.status.code();
            assert!(
                matches!(code, Some(1 | 125)),
                "{arguments:?} {script}: {code:?}: {said}"
            );
            let expected = format!("error: cannot write to standard output\n  caused by: {why}\n");
            assert!(said.ends_with(&expected), "{arguments:?} {script}: {said}");
        }
    }
}

#[test]
fn nothing_is_said_of_a_reader_that_has_gone() {
    for arguments in VERBS {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut command = with_output(arguments, "");
        let output = command.stdout(writer).output().unwrap();
        assert!(said(&output).is_empty(), "{arguments:?}: {output:?}");
    }
    let null = File::create("/dev/null").unwrap();
    let mut command = with_output(&["--help"], "");
    assert!(command.stdout(null).status().unwrap().success());
}
