//! `kvmlet stats` at a terminal: a table that is made anew each second.

use crate::harness::{Test, program};
use crate::terminal::{expect, pseudo_terminal, shell};
use rustix::termios::{Termios, tcgetattr};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Command;

pub const TESTS: &[Test] = &[(
    "a_table_of_statistics_is_made_anew_and_leaves_the_terminal_alone",
    table,
)];

/// What comes before each table: the terminal is cleared.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

fn modes(terminal: &OwnedFd) -> String {
    let Termios {
        input_modes,
        output_modes,
        control_modes,
        local_modes,
        ..
    } = tcgetattr(terminal).unwrap();
    format!("{input_modes:?} {output_modes:?} {control_modes:?} {local_modes:?}")
}

fn table() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("root")).unwrap();
    std::fs::write(place.path().join("root/file"), "text").unwrap();
    let (mut ours, theirs) = pseudo_terminal();
    let before = modes(&theirs);
    let script = format!(
        "set -eu; trap : INT; cd {}; K={} AGENT={}; mount -t tmpfs tmpfs /var/lib; trap '[ $BASHPID != $$ ] || $K rm -f web >/dev/null' EXIT
         $K run -d --name web --kernel $AGENT root stay >/dev/null
         code=0; $K stats || code=$?; echo ended $code
         (sleep 2; $K kill web >/dev/null) & code=0; $K stats web || code=$?; echo over $code",
        place.path().display(),
        env!("CARGO_BIN_EXE_kvmlet"),
        program("agent").display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", &script]);
    let mut shell = shell("trap : INT; \"$@\"; echo all $?", &command, &theirs);
    let mut seen = String::new();
    for _ in 0..3 {
        // A table, to the beginning of the next.
        expect(&mut ours, &mut seen, CLEAR);
        let rest = seen.split_off(seen.find(CLEAR).unwrap() + CLEAR.len());
        seen = rest;
        expect(&mut ours, &mut seen, "web ");
        assert!(seen.contains("NAME"), "{seen:?}");
    }
    assert_eq!(modes(&theirs), before);
    ours.write_all(b"\x03").unwrap();
    expect(&mut ours, &mut seen, "ended 130");
    assert_eq!(modes(&theirs), before);
    // No more is drawn than what was asked for, and what was drawn ends with a line.
    let end = seen.split("ended 130").next().unwrap();
    let last = end.trim_end_matches("\r\n").trim_end_matches("^C");
    assert!(last.ends_with('\n'), "{seen:?}");
    // One that is named is looked at until it has ended.
    expect(&mut ours, &mut seen, "over 0");
    expect(&mut ours, &mut seen, "all 0");
    assert_eq!(modes(&theirs), before);
    drop(theirs);
    assert!(shell.wait().unwrap().success());
}
