//! What is told of a program that is executed beside a VM's service.

use super::super::problem::{CONFLICT, NO_ANSWER, NOT_DONE, Problem};
use kvmlet_control::agent::AgentError;
use kvmlet_control::agent::channel::Fault;
use schemars::JsonSchema;
use serde::Serialize;

/// The exit code of a program that there is not, as shells have it.
const NOT_THERE: u8 = 127;

/// What is told of a program that is executed: an object a line, and that which says how it has ended is the last one.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[serde(default)]
pub struct ExecLine {
    /// Where it has written something: `stdout`, `stderr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<&'static str>,
    /// What: a line, a part of one, or several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The same, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Its exit code, or what stands for one: 128 and the signal that has killed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The number of that signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// Why nobody knows how it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Why nothing came of a program.
pub(super) fn failed(error: AgentError, called: &str) -> Problem {
    match &error {
        AgentError::Failed {
            fault: Fault::Start { exit_code },
            ..
        } => {
            let problem = Problem::new(NOT_DONE, error.to_string());
            match *exit_code {
                NOT_THERE => {
                    problem.help("what the image has can be executed; it need not have a shell")
                }
                _ => problem,
            }
        }
        AgentError::Failed {
            fault: Fault::Busy, ..
        } => {
            let mut problem = Problem::new(NOT_DONE, error.to_string());
            problem.retryable = true;
            problem
        }
        AgentError::Gone => {
            let detail = format!("VM `{called}` has ended before the program has");
            Problem::new(CONFLICT, detail)
        }
        AgentError::Late(_) => Problem::new(NO_ANSWER, error.to_string()),
        _ => Problem::because(NOT_DONE, &error),
    }
}
