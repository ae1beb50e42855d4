//! A daemon of the benchmark's own: its state is in the workshop, and it ends with the benchmark.

use crate::leftovers;
use crate::running::tail;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A daemon has this much time to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// A daemon that answers; it is ended when this is dropped.
pub(super) struct Daemon(Child);

impl Daemon {
    /// Starts it in a network namespace of its own, and waits until `ask` succeeds.
    pub fn start(
        argv: &[OsString],
        log: &Path,
        ask: impl Fn() -> Result<String, String>,
    ) -> Result<Self, String> {
        let (program, arguments) = argv.split_first().ok_or("no command")?;
        let name = program.to_string_lossy();
        let failed = |error: std::io::Error| format!("`{name}` cannot be started: {error}");
        let file = File::create(log).map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(failed)?)
            .stderr(file)
            .process_group(0);
        leftovers::mark(&mut command, log);
        let separate = || {
            // A benchmark that is killed leaves no daemon.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // SAFETY: only the network changes; no descriptors are shared or unshared.
            Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
        };
        // SAFETY: two system calls, without memory or locks.
        unsafe { command.pre_exec(separate) };
        let mut daemon = Self(command.spawn().map_err(failed)?);
        let begun = Instant::now();
        loop {
            let said = || tail(&fs::read(log).unwrap_or_default());
            if let Ok(Some(status)) = daemon.0.try_wait() {
                return Err(format!("`{name}` ended: {status}; it said: {}", said()));
            }
            match ask() {
                Ok(_) => return Ok(daemon),
                Err(error) if begun.elapsed() > PATIENCE => {
                    return Err(format!(
                        "`{name}` does not answer: {error}; it said: {}",
                        said()
                    ));
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if ended(&mut self.0) {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let begun = Instant::now();
        while !ended(&mut self.0) {
            if begun.elapsed() > PATIENCE {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// A command that is asked whether a daemon answers; it does not wait for long, nor for what does not heed a signal.
pub(super) fn briefly(argv: &[OsString]) -> Result<String, String> {
    let words = ["timeout", "--kill-after=1", "5"].map(OsString::from);
    let words: Vec<OsString> = words.into_iter().chain(argv.iter().cloned()).collect();
    let words: Vec<_> = words.iter().map(OsString::as_os_str).collect();
    crate::launch::output(&words)
}
