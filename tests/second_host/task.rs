//! What runs there: a program with a time that it may take, and what comes of it.

use crate::host::Host;
use crate::wire::{self, Report, Request, Status};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What a task may take that says nothing else. Everything is some twenty times slower there.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the agent may take to kill a task.
const KILL: Duration = Duration::from_secs(60);

/// Something to be run there.
#[derive(Debug, Clone)]
pub struct Task {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    patience: Duration,
    user: u32,
}

impl Task {
    /// A program, by its path or found in PATH, and its arguments.
    pub fn new<S: Into<String>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            patience: PATIENCE,
            user: 0,
        }
    }

    /// A shell script, which ends at the first command that fails.
    pub fn sh(script: &str) -> Self {
        Self::new(["sh", "-euc", script])
    }

    /// How long it may take from its start to its end (120 s).
    pub fn patience(mut self, seconds: u64) -> Self {
        self.patience = Duration::from_secs(seconds);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// In a session of that user (and group, and the group kvm) instead of root's.
    pub fn user(mut self, user: u32) -> Self {
        self.user = user;
        self
    }

    /// What the agent is told of it.
    pub fn command(self, environment: &[(String, String)]) -> wire::Command {
        wire::Command {
            arguments: self.arguments,
            environment: environment
                .iter()
                .cloned()
                .chain(self.environment)
                .collect(),
            directory: "/tmp".into(),
            user: self.user,
        }
    }
}

/// What a task has written, and how it has ended.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: Status,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The exit code; 128 and the signal's number if it was killed, as a shell would say.
    pub fn code(&self) -> i32 {
        match &self.status {
            Status::Code(code) => *code,
            Status::Signal(signal) => 128 + signal,
            Status::NotRun(reason) => panic!("{reason}"),
        }
    }

    /// What it wrote to standard output, if it succeeded; or else the test fails with all that is known.
    #[track_caller]
    pub fn success(self) -> String {
        self.ended_with(0).stdout
    }

    #[track_caller]
    pub fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.status, Status::Code(code), "{self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            status,
            stdout,
            stderr,
        } = self;
        write!(
            out,
            "{status:?}\n--- standard output\n{stdout}\n--- standard error\n{stderr}"
        )
    }
}

/// A task that may still run. It is killed when this is dropped.
pub struct Running<'a> {
    host: &'a Host,
    number: u64,
    what: String,
    reports: Receiver<Report>,
    deadline: Instant,
    patience: Duration,
    output: Output,
    ended: bool,
}

impl<'a> Running<'a> {
    /// A task of this number, which is about to start.
    pub fn new(host: &'a Host, number: u64, task: &Task, reports: Receiver<Report>) -> Self {
        Self {
            host,
            number,
            what: task.arguments.join(" "),
            reports,
            deadline: Instant::now() + task.patience,
            patience: task.patience,
            output: Output {
                status: Status::Code(0),
                stdout: String::new(),
                stderr: String::new(),
            },
            ended: false,
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        while !self.ended {
            self.step("to end");
        }
        self.output.clone()
    }

    /// Has it ended after so long?
    pub fn ends_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) => self.note(report),
                Err(_) => return false,
            }
        }
        true
    }

    /// Waits until it has written `text` to standard output.
    #[track_caller]
    pub fn until(&mut self, text: &str) {
        while !self.output.stdout.contains(text) {
            assert!(
                !self.ended,
                "{} ended without {text:?}: {}",
                self.what, self.output
            );
            self.step(text);
        }
    }

    /// Input for its first process.
    pub fn say(&self, text: &str) {
        let text = text.to_owned();
        self.host.send(&Request::Input {
            task: self.number,
            text,
        });
    }

    pub fn end_input(&self) {
        self.host.send(&Request::EndOfInput { task: self.number });
    }

    /// A signal to its first process.
    pub fn signal(&self, signal: i32) {
        self.host.send(&Request::Signal {
            task: self.number,
            signal,
        });
    }

    #[track_caller]
    fn step(&mut self, awaited: &str) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.reports.recv_timeout(left) {
            Ok(report) => self.note(report),
            Err(RecvTimeoutError::Disconnected) => {
                self.ended = true;
                panic!("{}: the second host is gone: {}", self.what, self.output);
            }
            Err(RecvTimeoutError::Timeout) => {
                let (what, patience) = (self.what.clone(), self.patience);
                let output = self.kill();
                panic!("{what}: no {awaited:?} within {patience:?}, killed: {output}");
            }
        }
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Up => {}
            Report::Output { text, .. } => self.output.stdout += &text,
            Report::Error { text, .. } => self.output.stderr += &text,
            Report::Ended { status, .. } => {
                self.output.status = status;
                self.ended = true;
            }
        }
    }

    /// Kills everything in its session, and returns what there was.
    pub fn kill(&mut self) -> Output {
        self.host.send(&Request::Kill { task: self.number });
        self.ends_within(KILL);
        self.output.clone()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}
