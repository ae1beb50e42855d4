//! Why something is not done, as RFC 9457 has it, and as Firecracker's clients look for it.

use super::ids;
use crate::http::Answer;
use kvmlet_manager::Error;
use kvmlet_manager::starting::NotStarted;
use kvmlet_spec::Remedy;
use schemars::JsonSchema;
use serde::Serialize;
use std::error::Error as StdError;

/// What it is.
pub const KIND: &str = "application/problem+json";

/// Why something is not done (RFC 9457).
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// Which sort of problem it is: `urn:kvmlet:` and a word.
    pub r#type: String,
    /// That in a few words.
    pub title: String,
    /// The status of the answer.
    #[schemars(range(min = 400, max = 599))]
    pub status: u16,
    /// What is wrong this time.
    pub detail: String,
    /// The same, by the name that Firecracker's clients look for.
    pub fault_message: String,
    /// What of the request it is about: a key of the body, with dots, or a parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What has led to it, the last one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// The way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Whether the same request may be answered otherwise a moment later.
    pub retryable: bool,
    /// Of the request: `Request-Id` in the head of each answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// The sorts of problems: word, title, status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort(pub &'static str, pub &'static str, pub u16);

/// What was sent is not understood.
pub const BAD_REQUEST: Sort = Sort("bad-request", "The request is not understood", 400);
/// There is nothing of that name.
pub const NOT_FOUND: Sort = Sort("not-found", "There is no such thing", 404);
/// That cannot be done with it.
pub const NOT_ALLOWED: Sort = Sort("method-not-allowed", "That cannot be done with it", 405);
/// It is not what it would have to be.
pub const CONFLICT: Sort = Sort("conflict", "It is in another state", 409);
/// It was tried, and does not run.
pub const NOT_STARTED: Sort = Sort("not-started", "The VM does not run", 422);
/// It was tried in vain.
pub const NOT_DONE: Sort = Sort("not-done", "It was tried, and is not done", 422);
/// Somebody did not want it any more.
pub const CANCELLED: Sort = Sort("cancelled", "It was cancelled", 409);
/// The host does not do it.
pub const HOST: Sort = Sort("host", "This host cannot do it", 500);
/// Later.
pub const TOO_OFTEN: Sort = Sort("too-many-requests", "Too much is asked in a time", 429);
/// Another time.
pub const BUSY: Sort = Sort("busy", "Too much is asked at a time", 503);
/// Its other end does not answer.
pub const NO_ANSWER: Sort = Sort("no-answer", "The VM does not answer", 504);

/// Errno ENOENT, in the words of the guest's agent.
const MISSING: &str = ": no such file or directory";

impl Problem {
    /// One of a sort.
    pub fn new(sort: Sort, detail: impl Into<String>) -> Self {
        let Sort(word, title, status) = sort;
        let detail = detail.into();
        Self {
            r#type: format!("urn:kvmlet:{word}"),
            title: title.into(),
            status,
            fault_message: detail.clone(),
            detail,
            field: None,
            causes: Vec::new(),
            help: None,
            retryable: [BUSY.2, NO_ANSWER.2, TOO_OFTEN.2].contains(&status),
            request_id: None,
        }
    }

    /// With the causes of an error.
    pub fn because(sort: Sort, error: &dyn StdError) -> Self {
        let mut problem = Self::new(sort, error.to_string());
        let causes = std::iter::successors(error.source(), |error| (**error).source());
        problem.causes = causes.map(ToString::to_string).collect();
        problem
    }

    /// Something in what was sent.
    pub fn in_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(BAD_REQUEST, detail);
        problem.field = Some(field.into());
        problem
    }

    /// As commands print it: what, its causes, and the way out, a line each; other things may stand before.
    pub fn in_words(sort: Sort, said: &str) -> Self {
        let begins = |line: &&str| line.starts_with("error: ");
        let before = said.lines().take_while(|line| !begins(line)).count();
        let all = said.lines().count();
        let mut lines = said.lines().skip(if before < all { before } else { 0 });
        let first = lines.next();
        let first = first.map(|line| line.strip_prefix("error: ").unwrap_or(line));
        let mut problem = Self::new(sort, first.unwrap_or("its process was killed"));
        for line in lines {
            match line.trim_start().split_once(": ") {
                Some(("caused by", cause)) => problem.causes.push(cause.into()),
                Some(("help", help)) => problem.help = Some(help.into()),
                _ => problem.causes.push(line.trim().into()),
            }
        }
        // What is said is all that there is to know it by.
        let saved = being_saved();
        problem.retryable |= problem
            .causes
            .iter()
            .chain([&problem.detail])
            .any(|it| *it == saved);
        problem
    }

    /// What a guest's agent has said of a file: that there is none is told from all else that can be in the way.
    pub fn of_file(said: &str) -> Self {
        let problem = Self::in_words(NOT_DONE, said);
        let is_missing = problem.causes.iter().any(|it| it.ends_with(MISSING));
        match is_missing {
            true => Self::in_words(NOT_FOUND, said),
            false => problem,
        }
    }

    /// With a way out.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Of a request.
    pub fn with_id(mut self, id: &str) -> Self {
        self.request_id = Some(id.into());
        self
    }

    /// What the client is told.
    pub fn answer(&self) -> Answer {
        let body = serde_json::to_string(self).unwrap_or_default();
        Answer::new(self.status, Some(body)).of_kind(KIND)
    }
}

/// What a VM says that is being saved: in a moment it is not, any more.
fn being_saved() -> String {
    kvmlet_vmm::Error::BeingSaved.to_string()
}

/// What is told before anybody knows what was asked for.
pub fn refuse(status: u16, why: &str) -> Answer {
    let sort = match status {
        503 => BUSY,
        status => Sort("bad-request", BAD_REQUEST.1, status),
    };
    let id = ids::next();
    ids::named(Problem::new(sort, why).with_id(&id).answer(), &id)
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let sort = match &error {
            Error::NotFound { .. } | Error::NoSnapshot { .. } | Error::NoVolume { .. } => NOT_FOUND,
            Error::Name(_) | Error::Ambiguous { .. } => BAD_REQUEST,
            Error::NameTaken { .. }
            | Error::InUse { .. }
            | Error::NotRunning { .. }
            | Error::Already { .. }
            | Error::Cannot { .. }
            | Error::VolumeUsed { .. }
            | Error::VolumeTaken { .. }
            | Error::VolumeShrinks { .. }
            | Error::RunsElsewhere { .. } => CONFLICT,
            Error::Control { source, .. } => match source {
                kvmlet_control::ConnectionError::Refused(_) if !source.is_late() => CONFLICT,
                _ => NO_ANSWER,
            },
            Error::Unasked { .. } => NO_ANSWER,
            Error::Locked { .. } | Error::Interrupted(_) => BUSY,
            _ => HOST,
        };
        let mut problem = match &error {
            // In the words of who says no.
            Error::Control {
                source: kvmlet_control::ConnectionError::Refused(why),
                ..
            } => Self::new(sort, why.message.clone()),
            error => Self::because(sort, error),
        };
        problem.retryable |= problem.detail == being_saved();
        problem.help = match &error {
            // By what clients of this API have.
            Error::NotFound { .. } => Some("`GET /v1/vms` lists all that there are".into()),
            error => error.remedy().map(|advice| advice.to_string()),
        };
        problem
    }
}

impl From<NotStarted> for Problem {
    fn from(error: NotStarted) -> Self {
        let NotStarted::Told { said, .. } = &error else {
            return Self::because(HOST, &error);
        };
        Self::in_words(NOT_STARTED, said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmlet_control::{ConnectionError, UNANSWERED};
    use kvmlet_spec::Failure;

    #[test]
    fn who_does_not_answer_is_told_from_who_says_no() {
        let refused = |message: &str| {
            let mut failure = Failure::default();
            failure.message = message.into();
            let called = "web".into();
            let source = ConnectionError::Refused(failure);
            Problem::from(Error::Control { called, source })
        };
        let late = refused(&format!("{UNANSWERED} 30 s"));
        assert_eq!((late.status, late.retryable), (504, true));
        assert_eq!(late.detail, "the VM has not answered within 30 s");
        let no = refused("the VM has no balloon");
        assert_eq!((no.status, no.retryable), (409, false));
    }

    #[test]
    fn a_file_that_is_not_there_is_told_from_one_that_cannot_be_read() {
        for (said, status) in [
            ("cannot read \"/a\": no such file or directory", 404),
            (
                "cannot read \"/a: no such file or directory\": not a directory",
                422,
            ),
        ] {
            let said = format!("error: cannot copy from `web`\n  caused by: the guest {said}\n");
            assert_eq!(Problem::of_file(&said).status, status);
        }
    }

    #[test]
    fn a_vm_that_is_being_saved_is_asked_again() {
        let mut failure = Failure::default();
        failure.message = kvmlet_vmm::Error::BeingSaved.to_string();
        let called = "web".into();
        let source = ConnectionError::Refused(failure);
        let problem = Problem::from(Error::Control { called, source });
        assert_eq!((problem.status, problem.retryable), (409, true));
        for (said, retryable) in [
            (
                "error: the VM is being saved\n  help: try again when it is\n",
                true,
            ),
            (
                "error: cannot save VM `a`\n  caused by: the VM is being saved\n",
                true,
            ),
            ("error: cannot save VM `a`\n  caused by: no space\n", false),
        ] {
            let problem = Problem::in_words(NOT_DONE, said);
            assert_eq!(problem.retryable, retryable, "{problem:?}");
        }
    }
}
