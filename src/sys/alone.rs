//! Tests that take a process of their own: those here, and those of the VMM and of the host, which have this file as well.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

const INSIDE: &str = "KVMLET_TEST_ALONE";

/// Runs `body` in a process with one thread and no more open than it needs.
pub fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        // The test's thread has another one beside it, which waits, and so holds no lock.
        // SAFETY: as above.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            end(body);
        }
        let mut status = 0;
        // SAFETY: stores a number.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        return assert_eq!(status, 0);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1", test])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // A name that matches no test would pass, too.
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

/// Runs `body` and ends the process.
pub fn end(body: impl FnOnce()) -> ! {
    let good = catch_unwind(AssertUnwindSafe(body)).is_ok();
    // SAFETY: ends the process.
    unsafe { libc::_exit(if good { 0 } else { 101 }) }
}
