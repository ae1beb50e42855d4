//! The last that a guest has written, for whoever is to learn why it ended.

use std::collections::VecDeque;

/// What is kept, in bytes. A panic's backtrace is longer; what it is about is said first and last.
const BYTES: usize = 4096;
/// The most lines that are told of.
const LINES: usize = 10;

/// The end of a guest's output.
#[derive(Default)]
pub struct LastOutput {
    bytes: VecDeque<u8>,
    /// There was more before.
    is_cut: bool,
}

impl LastOutput {
    /// One more byte.
    pub fn put(&mut self, byte: u8) {
        if self.bytes.len() == BYTES {
            self.bytes.pop_front();
            self.is_cut = true;
        }
        self.bytes.push_back(byte);
    }

    /// Has there been any?
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The last lines, ten at the most, without those that are empty. A guest may have written anything: what is not
    /// to be printed, control characters among it, is escaped as in Rust's strings (`\u{1b}`).
    pub fn lines(&self) -> Vec<String> {
        let (start, end) = self.bytes.as_slices();
        let bytes = [start, end].concat();
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        // Half a line says little, unless there is no other.
        if self.is_cut
            && lines
                .iter()
                .skip(1)
                .any(|line| !line.trim_ascii().is_empty())
        {
            lines.remove(0);
        }
        lines.retain(|line| !line.trim_ascii().is_empty());
        let first = lines.len().saturating_sub(LINES);
        lines[first..].iter().map(|line| printable(line)).collect()
    }
}

/// A line as it can be shown on any terminal.
fn printable(line: &[u8]) -> String {
    let mut text = String::new();
    for char in String::from_utf8_lossy(line.trim_ascii_end()).chars() {
        match char {
            // Which needs an escape in Rust's strings only.
            '"' | '\'' | '\\' => text.push(char),
            '\t' => text.push(' '),
            _ => text.extend(char.escape_debug()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(output: &[u8]) -> Vec<String> {
        let mut last = LastOutput::default();
        output.iter().for_each(|byte| last.put(*byte));
        assert!(last.bytes.len() <= BYTES);
        last.lines()
    }

    #[test]
    fn nothing_is_no_line() {
        assert!(LastOutput::default().is_empty());
        assert_eq!(lines(b"").len(), 0);
        assert_eq!(lines(b"\r\n \n").len(), 0);
    }

    #[test]
    fn the_last_ten_lines_are_told() {
        let all: Vec<String> = (0..40).map(|number| format!("line {number}")).collect();
        assert_eq!(lines(all.join("\r\n").as_bytes()), all[30..]);
        assert_eq!(lines(b"one\n\n\ntwo"), ["one", "two"]);
    }

    #[test]
    fn a_line_that_has_lost_its_beginning_is_left_out_unless_it_is_all() {
        let long = "x".repeat(3 * BYTES);
        assert_eq!(lines(format!("{long}\nend\n").as_bytes()), ["end"]);
        assert_eq!(lines(long.as_bytes()), [long[..BYTES].to_string()]);
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        let hostile = b"\x1b]0;title\x07\x1b[2J \xc2\x9b31m \xe2\x80\xae \xff a\rb \\\"'\tc \x7f";
        let expected = [
            r"\u{1b}]0;title\u{7}\u{1b}[2J \u{9b}31m \u{202e} ",
            "\u{fffd} ",
            r#"a\rb \"' c \u{7f}"#,
        ];
        assert_eq!(lines(hostile), [expected.concat()]);
        for byte in 0..=255 {
            for line in lines(&[b'a', byte, b'b']) {
                assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
    }
}
