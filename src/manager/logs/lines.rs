//! From bytes as they come to lines.

use super::{Entry, Stream};
use crate::Moment;
use std::time::Duration;

/// A longer line is kept in parts of this many bytes, as docker does.
pub const PART_BYTES: usize = 16 << 10;
/// How long the end of a line is waited for.
const WAIT: Duration = Duration::from_millis(200);

/// What has come of a line that has no end yet.
#[derive(Debug)]
pub(super) struct Partial {
    stream: Stream,
    text: Vec<u8>,
    /// When its first byte came.
    since: Moment,
}

impl Partial {
    pub fn of(stream: Stream) -> Self {
        Self {
            stream,
            text: Vec::new(),
            since: Moment::since_1970(Duration::ZERO),
        }
    }

    pub fn is_of(&self, stream: Stream) -> bool {
        self.stream == stream
    }

    /// Takes bytes, and gives away what is a line, or enough of one.
    pub fn push(&mut self, mut bytes: &[u8], now: Moment, mut give: impl FnMut(Entry)) {
        while !bytes.is_empty() {
            if self.text.is_empty() {
                self.since = now;
            }
            let room = PART_BYTES - self.text.len();
            let line = bytes.iter().take(room).position(|byte| *byte == b'\n');
            let taken = line.map_or(bytes.len().min(room), |end| end + 1);
            let (first, rest) = bytes.split_at(taken);
            bytes = rest;
            self.text.extend_from_slice(first);
            if line.is_some() || self.text.len() == PART_BYTES {
                give(self.take());
            }
        }
    }

    /// Gives away what has waited for its end for long enough.
    pub fn give_up(&mut self, now: Moment, give: impl FnOnce(Entry)) {
        if !self.text.is_empty() && now.since(self.since) >= WAIT {
            give(self.take());
        }
    }

    /// Gives away all there is.
    pub fn finish(&mut self, give: impl FnOnce(Entry)) {
        if !self.text.is_empty() {
            give(self.take());
        }
    }

    /// How long until it is to be given up.
    pub fn due(&self, now: Moment) -> Option<Duration> {
        (!self.text.is_empty()).then(|| WAIT.saturating_sub(now.since(self.since)))
    }

    fn take(&mut self) -> Entry {
        Entry {
            time: self.since,
            stream: self.stream,
            text: std::mem::take(&mut self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Moment {
        Moment::since_1970(Duration::from_millis(millis))
    }

    #[test]
    fn lines_have_the_time_of_their_beginning() {
        let mut partial = Partial::of(Stream::Stdout);
        let mut given = Vec::new();
        let mut push = |text: &str, now| {
            partial.push(text.as_bytes(), at(now), |entry| {
                given.push((entry.time, entry.text))
            })
        };
        push("one\ntw", 1);
        push("o\r\n\n", 2);
        let texts: Vec<_> = given
            .iter()
            .map(|(time, text)| (*time, &text[..]))
            .collect();
        assert_eq!(
            texts,
            [(at(1), &b"one\n"[..]), (at(1), b"two\r\n"), (at(2), b"\n")]
        );
    }

    #[test]
    fn a_prompt_is_not_waited_for_long() {
        let mut partial = Partial::of(Stream::Stdout);
        assert_eq!(partial.due(at(0)), None);
        partial.push(b"# ", at(1000), |_| panic!("there is no line"));
        assert_eq!(partial.due(at(1050)), Some(Duration::from_millis(150)));
        partial.give_up(at(1199), |_| panic!("it is early"));
        let mut given = None;
        partial.give_up(at(1200), |entry| given = Some(entry.text));
        assert_eq!(
            (given.as_deref(), partial.due(at(1200))),
            (Some(&b"# "[..]), None)
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_too_long(pieces in proptest::collection::vec(prop_oneof![
            4 => "[a-z\n]{0,40}",
            1 => (1..40_000_usize).prop_map(|count| "x".repeat(count)),
        ], 0..20)) {
            let mut partial = Partial::of(Stream::Stdout);
            let mut given: Vec<Vec<u8>> = Vec::new();
            for piece in &pieces {
                partial.push(piece.as_bytes(), at(0), |entry| given.push(entry.text));
            }
            partial.finish(|entry| given.push(entry.text));
            for text in &given {
                prop_assert!(!text.is_empty() && text.len() <= PART_BYTES);
                prop_assert!(!text[..text.len() - 1].contains(&b'\n'));
            }
            prop_assert_eq!(given.concat(), pieces.concat().into_bytes());
        }
    }
}
