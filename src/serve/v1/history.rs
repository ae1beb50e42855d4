//! What has happened to one VM since its server began, for those who are told and those who come back.

use kvmlet_control::{Report, State};
use kvmlet_manager::Moment;
use kvmlet_spec::Outcome;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::VecDeque;

/// As many are kept at the most.
const MOST: usize = 4000;

/// Something that has happened to the VM: one object a line.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Change {
    /// Its number: each is one more than the one before. They begin anew with the server.
    pub sequence: u64,
    /// When it was told (RFC 3339).
    pub time: String,
    /// What the VM does from then on: `starting`, `running`, `paused`, `ending`, `suspended`, or nothing more: `ended`.
    pub state: String,
    /// How it has ended, as `kvmlet boot --stats` writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub outcome: Option<Outcome>,
}

/// All of it, as far as it is kept.
#[derive(Debug, Default)]
pub struct History {
    last: u64,
    changes: VecDeque<Change>,
    ended: bool,
}

impl History {
    /// Notes what the VM tells, if that is a change.
    pub fn note(&mut self, report: Report) {
        match report {
            Report::State(state) => self.add(state.name(), None),
            Report::Ended(outcome) => self.end(Some(*outcome)),
            _ => {}
        }
    }

    /// It is gone. Nobody knows how it has ended if it has not told that.
    pub fn end(&mut self, outcome: Option<Outcome>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.add(ENDED, outcome);
        }
    }

    /// It has ended.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The number of the last change.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What has happened after that one.
    pub fn after(&self, sequence: u64) -> impl Iterator<Item = &Change> {
        let changes = self.changes.iter();
        changes.skip_while(move |it| it.sequence <= sequence)
    }

    fn add(&mut self, state: &str, outcome: Option<Outcome>) {
        self.last += 1;
        if self.changes.len() == MOST {
            self.changes.pop_front();
        }
        self.changes.push_back(Change {
            sequence: self.last,
            time: Moment::now().to_string(),
            state: state.into(),
            outcome,
        });
    }
}

/// What a VM that has ended is said to be.
pub const ENDED: &str = "ended";

/// The word for what a VM does, by what it tells.
pub fn state_of(told: &[Report]) -> Option<State> {
    told.iter().rev().find_map(|report| match report {
        Report::State(state) => Some(*state),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_back_is_told_what_was_missed() {
        let mut history = History::default();
        for state in [State::Starting, State::Running, State::Paused] {
            history.note(Report::State(state));
        }
        history.note(Report::Ready);
        history.end(None);
        history.end(None);
        let told = |sequence| -> Vec<String> {
            let after = history.after(sequence);
            after
                .map(|it| format!("{} {}", it.sequence, it.state))
                .collect()
        };
        assert_eq!(told(2), ["3 paused", "4 ended"]);
        assert_eq!(
            (told(0).len(), history.last(), history.has_ended()),
            (4, 4, true)
        );
        assert!(told(9).is_empty());
        for _ in 0..MOST {
            history.add("running", None);
        }
        assert_eq!(history.after(0).count(), MOST);
    }
}
