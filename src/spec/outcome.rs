//! How a run has ended, and what is told of it.

use crate::{HostStats, StartRecord, VmStats};
use serde::{Deserialize, Serialize};

/// How a VM's run has ended.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// Why it has.
    pub reason: Reason,
    /// The service's exit code, if the guest has powered off by itself; 0 if it told none.
    pub code: Option<u8>,
    /// The signal that asked for the end, or that killed the VM's process.
    pub signal: Option<i32>,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// What the VM had done when it ended, if it could still tell.
    pub stats: Option<Stats>,
}

/// Why a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// The guest powered off.
    Shutdown,
    /// The guest asked for a reset (`reboot`).
    Reset,
    /// The guest's kernel panicked.
    Panic,
    /// The guest crashed with a triple fault.
    TripleFault,
    /// It was to end, and its power was cut: it did not listen, or not in time.
    Stopped,
    /// Whoever was at its terminal pressed the escape key.
    Escape,
    /// A signal that its supervisor was sent wanted its end, and its power was cut.
    Signal,
    /// Its process was killed.
    Killed,
    /// One of its threads made a system call that it is not allowed to: a bug, or the guest has taken it over.
    Forbidden,
    /// It could not be started, or could not go on.
    Failed,
}

impl Outcome {
    /// One for this reason, of which nothing more is known.
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            code: None,
            signal: None,
            failure: None,
            stats: None,
        }
    }

    /// The same, with the service's exit code.
    pub fn code(self, code: u8) -> Self {
        let code = Some(code);
        Self { code, ..self }
    }

    /// The same, with the signal that led to it.
    pub fn signal(self, signal: i32) -> Self {
        let signal = Some(signal);
        Self { signal, ..self }
    }

    /// The same, with what went wrong.
    pub fn failure(self, failure: Failure) -> Self {
        let failure = Some(failure);
        Self { failure, ..self }
    }
}

/// An error of another process: what went wrong, why, and what helps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, thiserror::Error)]
#[error("{message}")]
#[serde(default)]
#[non_exhaustive]
pub struct Failure {
    /// What went wrong.
    pub message: String,
    /// Why.
    #[source]
    pub cause: Option<Box<Failure>>,
    /// What a person can do about it.
    pub help: Option<String>,
}

impl Failure {
    /// With everything that led to an error.
    pub fn of(error: &dyn std::error::Error) -> Self {
        let cause = error.source().map(|cause| Box::new(Self::of(cause)));
        Self {
            message: error.to_string(),
            cause,
            ..Self::default()
        }
    }
}

/// What a VM has done so far, and how it has started.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Stats {
    /// Its start.
    pub start: StartRecord,
    /// What it costs its host, where a supervisor has looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostStats>,
    /// What was counted.
    #[serde(flatten)]
    pub vm: VmStats,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_in_words_that_stay() {
        let cause = Failure {
            message: "no such file".into(),
            ..Failure::default()
        };
        let mut failure = Failure::of(&std::io::Error::other(cause));
        failure.help = Some("build one".into());
        let outcome = Outcome::new(Reason::TripleFault).code(7).failure(failure);
        let text = serde_json::to_string(&outcome).unwrap();
        assert_eq!(
            text,
            r#"{"reason":"triple-fault","code":7,"signal":null,"failure":{"message":"no such file","cause":null,"help":"build one"},"stats":null}"#
        );
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome);
        // An older kvmlet may have said less, and a newer one may say more.
        let stats = serde_json::from_str::<Stats>(r#"{"vcpus":[{"kicks":3,"naps":1}]}"#).unwrap();
        assert_eq!(stats.vm.vcpus[0].kicks, 3);
        let text = serde_json::to_string(&stats).unwrap();
        assert!(text.starts_with(r#"{"start":{"process_ns":0,"#), "{text}");
    }
}
