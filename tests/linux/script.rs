//! Scripts that drive kvmlet as a person would, beside everybody else on this machine.

use crate::DEADLINE;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// A script of bash's, in which `$K` is kvmlet.
pub struct Script<'a> {
    command: Command,
    text: &'a str,
}

impl<'a> Script<'a> {
    /// In this directory, with mounts of its own, and as many boots at the most.
    pub fn new(text: &'a str, directory: &Path, boots: u32) -> Self {
        let mut command = Command::new("timeout");
        command
            .arg((DEADLINE * boots).as_secs().to_string())
            .args(["unshare", "--mount", "--propagation", "private"])
            .current_dir(directory)
            .env("K", env!("CARGO_BIN_EXE_kvmlet"))
            .stdin(Stdio::null());
        Self { command, text }
    }

    /// In a network of its own, too.
    pub fn alone(mut self) -> Self {
        self.command.arg("--net");
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its good end, and returns what it has written to standard output and to standard error.
    pub fn run(mut self) -> (String, String) {
        let output = self.command.args(["bash", "-c", self.text]).output();
        let output = output.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{out}\n{err}");
        (out, err)
    }
}

/// Puts the root file system of a service into a directory, as `root`: it has this program, as `test`, and nothing else.
pub fn put_root(directory: &Path) {
    let root = directory.join("root");
    std::fs::create_dir(&root).unwrap();
    for directory in ["proc", "sys", "dev", "tmp"] {
        std::fs::create_dir(root.join(directory)).unwrap();
    }
    std::fs::copy(std::env::current_exe().unwrap(), root.join("test")).unwrap();
}
