//! What happens to instances, for who wants to know: one JSON object a line, numbered, in two files of the book (`events`
//! and `events.1`) that do not grow without end. What is true of an instance is in its own files: an event that cannot be
//! written is only not told.

mod reader;

pub use reader::{EventReader, EventSelection};

use crate::rotated::{Files, Lines};
use crate::{Book, InstanceId, LogLimits, Moment, Name};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::lock::{self, Failure, Patience};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

const FILES: &str = "events";
const LOCK: &str = "events.lock";
/// Some 4,000 events a file.
const LIMITS: LogLimits = LogLimits {
    file_bytes: 1 << 20,
    files: 2,
};
/// No event is longer.
const LINE_BYTES: usize = 16 << 10;
/// It is held for as long as writing a line takes. A supervisor has more to do than to wait for who was stopped meanwhile.
const PATIENCE: Patience = Patience {
    quiet: Duration::from_secs(1),
    limit: Duration::from_secs(1),
};

/// Something that has happened to an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: each is one more than the one before.
    pub sequence: u64,
    /// When it was written down.
    pub time: Moment,
    /// What: `create`, `start`, `die`, `rename` and so on, docker's words.
    pub event: String,
    /// To which instance.
    pub id: InstanceId,
    /// What that is called.
    pub name: Option<Name>,
    /// More about it: `exitCode`, `oldName`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Book {
    /// Writes down what has happened. Returns its number.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn tell<const N: usize>(
        &self,
        event: &str,
        id: &InstanceId,
        name: Option<&Name>,
        attributes: [(&str, String); N],
    ) -> io::Result<u64> {
        let directory = self.directory();
        let lock = directory.open_or_make(LOCK)?;
        let path = directory.path().join(LOCK);
        lock::acquire(&lock, &path, PATIENCE).map_err(|failure| match failure {
            Failure::Io(error) => error,
            Failure::Busy { .. } => io::ErrorKind::TimedOut.into(),
            Failure::Interrupted(interrupted) => interrupted.into(),
        })?;
        let mut files = Files::open(directory, FILES, LIMITS)?;
        let sequence = last(directory)?.map_or(0, |last| last.sequence) + 1;
        let event = Event {
            sequence,
            // Events are in the order of their numbers, and so are their times, unless the clock is set.
            time: Moment::now(),
            event: event.into(),
            id: id.clone(),
            name: name.cloned(),
            attributes: attributes.map(|(key, value)| (key.into(), value)).into(),
        };
        let mut line = serde_json::to_vec(&event)?;
        if line.len() >= LINE_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        line.push(b'\n');
        files.write(&line)?;
        Ok(sequence)
    }
}

/// The last event, in whichever file it is.
fn last(directory: &Directory) -> io::Result<Option<Event>> {
    // The very last line may be what somebody has left who was killed.
    let mut lines = Lines::open(directory, FILES, LINE_BYTES, Some(3))?;
    let mut last = None;
    while let Some(line) = lines.next()? {
        last = serde_json::from_slice(&line).ok().or(last);
    }
    Ok(last)
}

#[cfg(test)]
mod tests;
