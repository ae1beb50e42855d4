//! How to start one instance, and what it leaves behind.

use super::error::Halt;
use super::running::{Running, explain};
use super::sample::Times;
use kvmlet_sys::signals::Signals;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How to start one instance.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The program and its arguments, as they are executed.
    pub argv: Vec<OsString>,
    /// Commands that remove what a start that failed or was killed leaves behind.
    pub clean: Vec<Vec<OsString>>,
    /// The command stays when its service has ended, and has to be killed.
    pub stays: bool,
}

impl Launch {
    /// A command that leaves nothing behind and ends by itself.
    pub fn new(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            argv: words(argv),
            ..Self::default()
        }
    }

    /// One more command for cleaning up.
    #[must_use]
    pub fn clean(mut self, argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.clean.push(words(argv));
        self
    }

    /// Runs the commands that clean up. They may find nothing, so what they say is of no interest.
    pub fn clean_up(&self) {
        for argv in &self.clean {
            if let Some((program, arguments)) = argv.split_first() {
                let _ = Command::new(program)
                    .args(arguments)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
            }
        }
    }

    /// Starts it, waits for `ready` and for the end. Whatever happens, the process is gone afterwards, and what
    /// it left behind after a failure.
    ///
    /// `stderr` is a file for what it says; `deadline` is for all of it.
    pub(super) fn time(
        &self,
        stderr: &Path,
        deadline: Duration,
        signals: &Signals,
    ) -> Result<Times, Halt> {
        let times = self.try_time(stderr, deadline, signals);
        if times.is_err() || self.stays {
            self.clean_up();
        }
        times
    }

    fn try_time(
        &self,
        stderr: &Path,
        deadline: Duration,
        signals: &Signals,
    ) -> Result<Times, Halt> {
        let mut running = Running::start(&self.argv, stderr, deadline)?;
        let ready = running.wait_ready(signals)?;
        let gone = if self.stays {
            None
        } else {
            Some(running.wait_gone(signals)?)
        };
        Ok(Times { ready, gone })
    }
}

fn words(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Vec<OsString> {
    argv.into_iter().map(Into::into).collect()
}

/// Runs a short command and returns what it wrote to standard output.
///
/// # Errors
/// A sentence with the last line of what it wrote to standard error.
pub fn output(argv: &[&OsStr]) -> Result<String, String> {
    let (program, arguments) = argv.split_first().ok_or("no command")?;
    let name = program.to_string_lossy();
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("`{name}` cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "`{name}`: {}",
        explain(output.status, &output.stdout, &output.stderr)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn time(script: &str, deadline: Duration) -> Result<Times, Halt> {
        let directory = tempfile::tempdir().unwrap();
        let signals = Signals::take(&[]).unwrap();
        Launch::new(["sh", "-c", script]).time(&directory.path().join("stderr"), deadline, &signals)
    }

    fn failure(script: &str, deadline: Duration) -> String {
        match time(script, deadline) {
            Err(Halt::Failed(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn ready_comes_before_gone() {
        let times = time(
            "echo some other line; printf 'ready\\r\\n'; echo more",
            LONG,
        )
        .unwrap();
        assert!(times.ready <= times.gone.unwrap());
    }

    #[test]
    fn a_command_that_is_not_there_is_named() {
        let signals = Signals::take(&[]).unwrap();
        let result = Launch::new(["/nowhere/at/all"]).time(Path::new("/dev/null"), LONG, &signals);
        assert!(matches!(result, Err(Halt::Failed(text)) if text.contains("/nowhere/at/all")));
    }

    #[test]
    fn an_end_before_ready_says_why() {
        let message = failure("echo already; echo the reason >&2; exit 3", LONG);
        assert!(message.contains("exit status: 3"), "{message}");
        assert!(message.contains("the reason | already"), "{message}");
    }

    #[test]
    fn a_failure_after_ready_counts_as_one() {
        assert!(failure("echo ready; exit 7", LONG).contains("exit status: 7"));
    }

    #[test]
    fn whoever_is_not_ready_in_time_is_killed_with_its_group() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!(
            "sleep 1000 & echo $! >{}; echo almost; wait",
            file.display()
        );
        let message = failure(&script, Duration::from_millis(300));
        assert!(message.contains("not ready within"), "{message}");
        let pid: i32 = std::fs::read_to_string(file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let deadline = Instant::now() + LONG;
        // A killed child of a killed shell waits for whoever reaps orphans here.
        let dead = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        while !dead() {
            assert!(Instant::now() < deadline, "it lives");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_signal_interrupts_and_cleans_up() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("cleaned");
        let launch = Launch::new(["sleep", "1000"]).clean([OsStr::new("touch"), file.as_os_str()]);
        let stderr = directory.path().join("stderr");
        let result = std::thread::spawn(move || {
            let signals = Signals::take(&[libc::SIGUSR2]).unwrap();
            // SAFETY: the signal is blocked in this thread, so it only becomes readable.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
            launch.time(&stderr, LONG, &signals)
        });
        assert!(matches!(result.join().unwrap(), Err(Halt::Interrupted)));
        assert!(file.exists());
    }
}
