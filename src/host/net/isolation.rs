//! Tests in a process and a network namespace of their own, as root of it. Nothing that they do to the network
//! reaches that of the machine.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const INSIDE: &str = "KVMLET_TEST_NAMESPACE";

/// Runs `body` in a new namespace. `test` is the whole name of the calling test, by which it is found again.
pub(crate) fn isolated(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let output = command(test, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // A name that matches no test would pass, too.
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n(the test makes a network namespace: that takes root, or unprivileged user namespaces)"
    );
}

/// The value that another process of a test was started with, if this is one.
pub(crate) fn role() -> Option<String> {
    std::env::var(INSIDE).ok().filter(|role| role != "1")
}

/// Another process of the same test in the same namespace. Its standard output, after what the test harness
/// prints, is the caller's to read.
pub(crate) fn companion(test: &str, role: &str) -> Command {
    let mut command = bare(test, role);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn bare(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture", test])
        .env(INSIDE, role);
    command
}

fn command(test: &str, role: &str) -> Command {
    let mut command = bare(test, role);
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let maps = [
        ("/proc/self/setgroups", "deny".to_string()),
        ("/proc/self/uid_map", format!("0 {} 1", user.as_raw())),
        ("/proc/self/gid_map", format!("0 {} 1", group.as_raw())),
    ];
    let enter = move || {
        // SAFETY: unshare takes flags only.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
            return Ok(());
        }
        // SAFETY: as above.
        if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        for (file, text) in &maps {
            std::fs::write(file, text)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, and small files written.
    unsafe { command.pre_exec(enter) };
    command
}

/// A network namespace within that of a test.
pub(crate) struct Namespace(std::fs::File);

impl Namespace {
    pub(crate) fn new() -> Self {
        let made = std::thread::spawn(|| {
            // SAFETY: unshare takes flags only, and concerns this thread only.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            std::fs::File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap())
    }

    /// Runs `body` on a thread in the namespace. Sockets that it makes stay there.
    pub(crate) fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        use std::os::fd::AsRawFd;
        let file = self.0.as_raw_fd();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: the descriptor is a namespace's, and open while this value is borrowed.
                assert_eq!(unsafe { libc::setns(file, libc::CLONE_NEWNET) }, 0);
                body()
            });
            thread.join().unwrap()
        })
    }
}
