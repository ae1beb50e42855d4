//! One line on a terminal that says what a benchmark is at.

use kvmlet_bench::Step;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Writing costs time, also of those who are measured.
const PAUSE: Duration = Duration::from_millis(100);

/// The line; quiet where standard error is no terminal. Erased when dropped.
pub(super) struct Progress {
    terminal: bool,
    begun: Instant,
    written: Option<Instant>,
}

impl Progress {
    pub fn begin() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            begun: Instant::now(),
            written: None,
        }
    }

    /// Says what comes next, if the last time was not just now.
    pub fn step(&mut self, step: Step<'_>) {
        if !self.terminal || self.written.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        let Step {
            stage,
            round,
            of,
            name,
        } = step;
        let seconds = self.begun.elapsed().as_secs();
        let line = format!(
            "{stage} {round} of {of}: {name}  {}:{:02}",
            seconds / 60,
            seconds % 60
        );
        self.write(&line);
        self.written = Some(Instant::now());
    }

    fn write(&self, line: &str) {
        // A terminal that has gone away needs no progress.
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.written.is_some() {
            self.write("");
        }
    }
}
