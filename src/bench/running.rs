//! One start as it goes on: the wait for the line `ready`, the wait for the end.
//!
//! The clock is CLOCK_MONOTONIC. It starts right before the spawn (which copies no page tables: std uses
//! posix_spawn, that is `CLONE_VM | CLONE_VFORK`), so `fork` and `exec` count, as they do for a shell.

use super::error::Halt;
use super::leftovers;
use kvmlet_sys::signals::Signals;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The line that a service writes once it runs.
pub const READY: &[u8] = b"ready";

/// This much of what was written is kept, to explain a failure.
const KEPT_BYTES: usize = 16 << 10;

/// A process that was started, with its whole group; killed when dropped before its end.
pub(super) struct Running {
    child: Child,
    stdout: ChildStdout,
    started: Instant,
    deadline: Instant,
    written: Vec<u8>,
    stderr: File,
    ended: bool,
}

impl Running {
    pub fn start(argv: &[OsString], stderr: &Path, deadline: Duration) -> Result<Self, Halt> {
        let failed = |error: io::Error| Halt::Failed(error.to_string());
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| Halt::Failed("no command".into()))?;
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(stderr);
        let file = file.map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file.try_clone().map_err(failed)?)
            // A group of its own: a terminal's Ctrl-C reaches the benchmark first, which ends the whole group.
            .process_group(0);
        leftovers::mark(&mut command, stderr);
        let started = Instant::now();
        let mut child = command.spawn().map_err(|error| {
            Halt::Failed(format!(
                "`{}` cannot be started: {error}",
                program.display()
            ))
        })?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| Halt::Failed("no pipe".into()))?;
        Ok(Self {
            child,
            stdout,
            started,
            deadline: started + deadline,
            written: Vec::new(),
            stderr: file,
            ended: false,
        })
    }

    /// When it was about to be spawned.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Waits for the line, and returns the time from the spawn to it.
    pub fn wait_ready(&mut self, signals: &Signals) -> Result<Duration, Halt> {
        loop {
            self.wait_for(self.stdout.as_fd(), None, signals, "ready")?;
            let open = self.read()?;
            if has_line(&self.written, READY) {
                return Ok(self.started.elapsed());
            }
            if !open {
                let status = self.reap()?;
                return Err(Halt::Failed(format!(
                    "it ended without being ready: {}",
                    self.explain(status)
                )));
            }
        }
    }

    /// Waits for the end, and returns the time from the spawn to it. An exit code other than 0 is a failure.
    pub fn wait_gone(&mut self, signals: &Signals) -> Result<Duration, Halt> {
        let failed = |error: rustix::io::Errno| Halt::Failed(error.to_string());
        let pid = Pid::from_child(&self.child);
        let end = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
        let mut open = true;
        loop {
            // What it still writes is read, so that a full pipe does not keep it.
            let output = open.then(|| self.stdout.as_fd());
            if self.wait_for(end.as_fd(), output, signals, "gone")? {
                let gone = self.started.elapsed();
                let status = self.reap()?;
                return if status.success() {
                    Ok(gone)
                } else {
                    Err(Halt::Failed(format!(
                        "it was ready, but then: {}",
                        self.explain(status)
                    )))
                };
            }
            open = self.read()?;
        }
    }

    /// Waits for a line that begins so, and returns the last of all that was written.
    pub fn wait_line(&mut self, signals: &Signals, begin: &str) -> Result<String, Halt> {
        loop {
            self.wait_for(self.stdout.as_fd(), None, signals, "done")?;
            let open = self.read()?;
            let text = String::from_utf8_lossy(&self.written);
            // What is behind the last line feed is no whole line yet.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if whole.lines().any(|line| line.starts_with(begin)) {
                return Ok(text.into_owned());
            }
            if !open {
                let status = self.reap()?;
                let said = self.explain(status);
                return Err(Halt::Failed(format!("it ended before it was done: {said}")));
            }
        }
    }

    /// Waits for the end, and returns the last of all that was written. An exit code other than 0 is a failure.
    pub fn wait_output(&mut self, signals: &Signals) -> Result<String, Halt> {
        loop {
            self.wait_for(self.stdout.as_fd(), None, signals, "done")?;
            if !self.read()? {
                break;
            }
        }
        self.wait_gone(signals)?;
        Ok(String::from_utf8_lossy(&self.written).into_owned())
    }

    /// Waits until one of both can be read; true if it is the first.
    fn wait_for(
        &self,
        first: BorrowedFd<'_>,
        second: Option<BorrowedFd<'_>>,
        signals: &Signals,
        what: &str,
    ) -> Result<bool, Halt> {
        let slots = [
            Slot::readable(signals.as_fd()),
            Slot::readable(first),
            second.map_or(Slot::NOTHING, Slot::readable),
        ];
        let come = wait::any(slots, Until::Deadline(self.deadline));
        match come.map_err(|error| Halt::Failed(error.to_string()))? {
            [true, _, _] => Err(Halt::Interrupted),
            [_, false, false] => {
                let limit = (self.deadline - self.started).as_secs();
                let (out, said) = (tail(&self.written), tail(&self.said()));
                Err(Halt::Failed(format!(
                    "it was not {what} within {limit} s{}",
                    after(&[said, out])
                )))
            }
            [_, first, _] => Ok(first),
        }
    }

    /// Reads what there is; false at the end of the stream.
    fn read(&mut self) -> Result<bool, Halt> {
        let mut chunk = [0; 4096];
        match rustix::io::read(&self.stdout, &mut chunk) {
            Ok(count) => {
                self.written.extend_from_slice(&chunk[..count]);
                if self.written.len() > 2 * KEPT_BYTES {
                    self.written.drain(..self.written.len() - KEPT_BYTES);
                }
                Ok(count > 0)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(Halt::Failed(error.to_string())),
        }
    }

    fn reap(&mut self) -> Result<ExitStatus, Halt> {
        let status = self
            .child
            .wait()
            .map_err(|error| Halt::Failed(error.to_string()))?;
        self.ended = true;
        Ok(status)
    }

    fn said(&self) -> Vec<u8> {
        let mut bytes = vec![0; KEPT_BYTES];
        let end = self.stderr.metadata().map_or(0, |file| file.len());
        let from = end.saturating_sub(KEPT_BYTES as u64);
        let count =
            std::os::unix::fs::FileExt::read_at(&self.stderr, &mut bytes, from).unwrap_or(0);
        bytes.truncate(count);
        bytes
    }

    fn explain(&self, status: ExitStatus) -> String {
        explain(status, &self.written, &self.said())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Is there a line that is exactly `line`? Consoles end theirs with a carriage return, too.
fn has_line(written: &[u8], line: &[u8]) -> bool {
    let mut lines = written.split(|byte| *byte == b'\n');
    // What is behind the last line feed is no whole line yet.
    lines.next_back();
    lines.any(|found| found.strip_suffix(b"\r").unwrap_or(found) == line)
}

pub(super) fn explain(status: ExitStatus, written: &[u8], said: &[u8]) -> String {
    format!("{status}{}", after(&[tail(said), tail(written)]))
}

fn after(texts: &[String]) -> String {
    let texts: Vec<&str> = texts
        .iter()
        .map(String::as_str)
        .filter(|text| !text.is_empty())
        .collect();
    if texts.is_empty() {
        String::new()
    } else {
        format!("; it said: {}", texts.join(" | "))
    }
}

/// The last lines of a text, as one line. What consoles write besides text is not for the terminal of whoever measures.
pub(super) fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let is_shown = |it: char| !it.is_control() || it == '\n';
    let text: String = text
        .chars()
        .map(|it| if is_shown(it) { it } else { ' ' })
        .collect();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_does_nothing_to_a_terminal() {
        let said = b"\x1b[2Jone\r\n\ntwo \x07\xff\n";
        assert_eq!(tail(said), "[2Jone | two  \u{fffd}");
    }

    #[test]
    fn only_a_whole_line_counts() {
        assert!(has_line(b"x\nready\r\n", READY));
        assert!(!has_line(b"ready", READY));
        assert!(!has_line(b"not ready\n", READY));
        assert!(!has_line(b"ready for nothing\n", READY));
    }
}
