//! One entry.

use super::text::{self, AnyText};
use crate::Moment;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fmt::Write;

/// Where something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// The service's standard output.
    Stdout,
    /// The service's standard error.
    Stderr,
    /// The guest's console: its kernel's messages, and all that has no stream of its own.
    Console,
    /// By kvmlet, about what it does.
    Kvmlet,
    /// By kvmlet, where something of the service's was dropped: whoever reads that is told.
    Dropped,
}

impl Stream {
    /// Those that something is written to.
    pub const ALL: [Self; 4] = [Self::Stdout, Self::Stderr, Self::Console, Self::Kvmlet];

    /// The word in a log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Console => "console",
            Self::Kvmlet => "kvmlet",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A line, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was read from the guest.
    pub time: Moment,
    /// Where it was written.
    pub stream: Stream,
    /// What was written; the end of the line is a part of it.
    pub text: Vec<u8>,
}

#[derive(Deserialize)]
struct Written {
    log: AnyText,
    stream: Stream,
    time: Moment,
}

impl Entry {
    /// Appends it as a line of a log.
    pub(super) fn push(&self, line: &mut String) {
        line.push_str("{\"log\":");
        text::push(line, &self.text);
        // Writing to a String cannot fail.
        let _ = writeln!(
            line,
            ",\"stream\":\"{}\",\"time\":\"{}\"}}",
            self.stream, self.time
        );
    }

    /// Reads a line of a log; none if it is not one, as the last one of a writer whose host lost its power.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let Written { log, stream, time } = serde_json::from_slice(line).ok()?;
        let text = log.0;
        Some(Self { time, stream, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_dockers() {
        let entry = Entry {
            time: "2026-11-28T17:54:26.5Z".parse().unwrap(),
            stream: Stream::Stderr,
            text: b"caf\xc3\xa9\xff\n".to_vec(),
        };
        let mut line = String::new();
        entry.push(&mut line);
        let expected =
            r#"{"log":"café\udcff\n","stream":"stderr","time":"2026-11-28T17:54:26.500000000Z"}"#;
        assert_eq!(line, format!("{expected}\n"));
        assert_eq!(Entry::read(line.as_bytes()), Some(entry));
        for broken in ["", "{}", &line[..40], &line.replace("stderr", "stdfoo")] {
            assert_eq!(Entry::read(broken.as_bytes()), None, "{broken}");
        }
    }
}
