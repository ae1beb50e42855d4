//! What strangers have written, such as an image's maker or a guest, in a form that steers no terminal and no reader.

use crate::Failed;
use serde::Serialize;
use std::fmt::Write;

/// Whether a terminal does something else with it than to show it: control characters, also those of C1, of which a single one
/// begins a sequence; and those that turn the direction of text around, behind which text is not where it seems to be.
fn steers(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text in one line, for a column of a table.
pub fn line(text: &str) -> String {
    let plain = |char| match char {
        '\n' | '\t' => ' ',
        char if steers(char) => char::REPLACEMENT_CHARACTER,
        char => char,
    };
    text.chars().map(plain).collect()
}

/// A text with the lines and tabs that it has.
pub fn lines(text: &str) -> String {
    let plain = |char| match char {
        '\n' | '\t' => char,
        char if steers(char) => char::REPLACEMENT_CHARACTER,
        char => char,
    };
    text.chars().map(plain).collect()
}

/// JSON in one line, the end of which is not in it.
///
/// # Errors
/// When there is no JSON for it.
pub fn json(value: &impl Serialize) -> Result<String, Failed> {
    let text = serde_json::to_string(value).map_err(Failed::new)?;
    Ok(escaped(&text))
}

/// JSON in lines, for people, the end of the last of which is not in it.
///
/// # Errors
/// When there is no JSON for it.
pub fn pretty_json(value: &impl Serialize) -> Result<String, Failed> {
    let text = serde_json::to_string_pretty(value).map_err(Failed::new)?;
    Ok(escaped(&text))
}

/// The same JSON, in which whatever steers a terminal is escaped. It can only stand in texts, and serde_json escapes what
/// JSON demands: characters before the space.
pub(crate) fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            char if char >= ' ' && steers(char) => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(char));
            }
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json as value};

    const EVIL: &str = "a\u{1b}[2J\u{9b}31m\u{7f}\r\n\t\u{202e}b\u{2066}\u{2028}\u{e9}";

    #[test]
    fn what_steers_a_terminal_is_replaced() {
        let clean = "a\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}";
        let end = "\u{fffd}b\u{fffd}\u{fffd}\u{e9}";
        assert_eq!(line(EVIL), format!("{clean}  {end}"));
        assert_eq!(lines(EVIL), format!("{clean}\n\t{end}"));
    }

    #[test]
    fn json_is_the_same_and_steers_nothing() {
        let value = value!({ EVIL: [EVIL, 1, null], "z": {} });
        for text in [json(&value).unwrap(), pretty_json(&value).unwrap()] {
            assert!(
                !text.chars().any(|char| char != '\n' && steers(char)),
                "{text:?}"
            );
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
        assert_eq!(json(&"\u{9b}\u{e9}").unwrap(), "\"\\u009b\u{e9}\"");
    }
}
