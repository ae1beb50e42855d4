//! What the test and the agent in the machine say to each other: JSON, one object in each line.

use serde::{Deserialize, Serialize};

/// From the test to the agent. Every task has a number that the test has chosen.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Start {
        task: u64,
        command: Command,
    },
    Input {
        task: u64,
        text: String,
    },
    EndOfInput {
        task: u64,
    },
    /// To the task's first process only.
    Signal {
        task: u64,
        signal: i32,
    },
    /// The end of everything in the task's session.
    Kill {
        task: u64,
    },
}

/// What a task is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Command {
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub directory: String,
    /// Whose session it is: user and group have the same number.
    pub user: u32,
}

/// From the agent to the test.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The machine is up.
    Up,
    Output {
        task: u64,
        text: String,
    },
    Error {
        task: u64,
        text: String,
    },
    Ended {
        task: u64,
        status: Status,
    },
}

/// How a task has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Code(i32),
    Signal(i32),
    /// It never ran, for this reason.
    NotRun(String),
}

/// What the initramfs tells the first process, in a file of this name.
pub const SETTINGS: &str = "/settings.json";

/// What the first process has to know.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Files of the initramfs, in the order in which they can be loaded.
    pub modules: Vec<String>,
    /// The kernel's release, and where its modules are on the first host.
    pub release: String,
    pub all_modules: String,
}

/// The tag of the first host's root file system.
pub const ROOT_TAG: &str = "first-host";

/// The name of the agent's port.
pub const AGENT: &str = "agent";
