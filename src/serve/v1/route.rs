//! What a request can be, and what it is answered.

use super::problem::KIND as PROBLEM;
use crate::http::{Answer, Method};
use schemars::{Schema, SchemaGenerator};

/// One JSON object a line.
pub const LINES: &str = "application/x-ndjson";
/// Statistics as scrapers read them (OpenMetrics 1.0).
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long one may wait at a time, in seconds.
pub const MOST_WAIT_S: u64 = 300;

/// Something that can be said behind the `?`.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// How it is called.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// What it can be, as a JSON schema.
    pub schema: &'static str,
    /// It is to be said.
    pub required: bool,
}

/// A type, as a schema.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What may be answered.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// The status.
    pub status: u16,
    /// What it means.
    pub about: &'static str,
    /// What the body is.
    pub kind: &'static str,
    /// Its schema; of each line, where it is lines. None without a body.
    pub schema: Option<SchemaOf>,
}

/// What is done, as `acts` does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Events are told until nobody reads them.
    Events,
    Capabilities,
    OpenApi,
    List,
    Create,
    Tell,
    Delete,
    Start,
    Stop,
    Kill,
    Pause,
    Resume,
    Wait,
    Logs,
    Stats,
    Metrics,
    Limit,
    Balloon,
    Snapshot,
    Suspend,
    Clone,
    Restore,
    Run,
    Exec,
    ReadFiles,
    WriteFiles,
    Operations,
    Operation,
    AwaitOperation,
    CancelOperation,
}

/// Something that can be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// What is to be done.
    pub method: Method,
    /// With what: `{name}` or `{id}` stands for one step.
    pub path: &'static str,
    /// What generated clients call it.
    pub id: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// What more there is to know.
    pub more: &'static str,
    /// What may stand behind the `?`.
    pub query: &'static [Parameter],
    /// What the body is to be.
    pub body: Option<SchemaOf>,
    /// What that is.
    pub body_kind: &'static str,
    /// What is answered when it is done.
    pub told: &'static [Told],
    /// Statuses of the problems that there may be, beside those of all.
    pub problems: &'static [u16],
    /// What is done.
    pub act: Act,
}

/// Problems that any request may have: not understood, not in time, too much, too often, too many, the host.
pub const OF_ALL: [u16; 7] = [400, 408, 413, 429, 431, 500, 503];

impl Route {
    /// May it be answered like this?
    pub fn has(&self, answer: &Answer) -> bool {
        let told = |told: &&Told| told.status == answer.status && told.kind == answer.kind;
        let is_problem = OF_ALL.contains(&answer.status) || self.problems.contains(&answer.status);
        self.told.iter().any(|it| told(&it)) || (is_problem && answer.kind == PROBLEM)
    }
}
