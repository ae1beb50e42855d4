//! A JSON reader (RFC 8259), as small as PID 1 wants it: page-cache copies of a larger init cost
//! more than the whole file takes to read. Values that a service file has no use for are checked
//! and then only known by their kind.

use alloc::string::String;
use alloc::vec::Vec;

use crate::Error;

/// Nesting beyond this is refused, so that a file cannot overflow the stack.
const MAX_DEPTH: usize = 16;

#[derive(Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Boolean,
    Number,
    String(String),
    Array(Vec<Value>),
    /// In the order of the file; no key is there twice.
    Object(Vec<(String, Value)>),
}

impl Value {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Reads one JSON value that takes up the whole text.
pub(crate) fn parse(text: &str) -> Result<Value, Error> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.error("nothing is expected after the value"));
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    /// Byte offset of what comes next; always at the start of a character.
    at: usize,
}

impl Parser<'_> {
    fn error(&self, reason: &'static str) -> Error {
        let before = &self.text[..self.at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Error::Syntax {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            reason,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes `byte`, which is ASCII, if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Error> {
        if depth > MAX_DEPTH {
            return Err(self.error("too many levels of nesting"));
        }
        self.space();
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'[') => self.array(depth),
            Some(b'{') => self.object(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let words = [
                    ("null", Value::Null),
                    ("true", Value::Boolean),
                    ("false", Value::Boolean),
                ];
                for (word, value) in words {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.error("a value is expected"))
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Error> {
        let mut items = Vec::new();
        self.at += 1;
        self.space();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return Err(self.error("\",\" or \"]\" is expected"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, Error> {
        let mut members: Vec<(String, Value)> = Vec::new();
        self.at += 1;
        self.space();
        if self.take(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.error("a key in quotes is expected"));
            }
            let key = self.string()?;
            if members.iter().any(|(known, _)| *known == key) {
                return Err(Error::Repeated { key });
            }
            self.space();
            if !self.take(b':') {
                return Err(self.error("\":\" is expected"));
            }
            members.push((key, self.value(depth + 1)?));
            self.space();
            if self.take(b'}') {
                return Ok(Value::Object(members));
            }
            if !self.take(b',') {
                return Err(self.error("\",\" or \"}\" is expected"));
            }
        }
    }

    fn number(&mut self) -> Result<Value, Error> {
        self.take(b'-');
        // No digit may follow a leading zero (RFC 8259 §6).
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(Value::Number)
    }

    fn digits(&mut self) -> Result<(), Error> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            Err(self.error("a digit is expected"))
        } else {
            Ok(())
        }
    }

    fn string(&mut self) -> Result<String, Error> {
        let mut out = String::new();
        self.at += 1;
        loop {
            let Some(c) = self.text[self.at..].chars().next() else {
                return Err(self.error("the string has no end"));
            };
            match c {
                '\0'..='\u{1f}' => return Err(self.error("control characters must be escaped")),
                '"' => {
                    self.at += 1;
                    return Ok(out);
                }
                '\\' => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                _ => {
                    self.at += c.len_utf8();
                    out.push(c);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        let c = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => c as char,
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.error("no such escape")),
        };
        self.at += 1;
        Ok(c)
    }

    /// `uXXXX`, or two of them for a character beyond the basic plane.
    fn unicode(&mut self) -> Result<char, Error> {
        let mut code = self.code_unit()?;
        if (0xd800..0xdc00).contains(&code) && self.take(b'\\') {
            let low = self.code_unit()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(self.error("half of a surrogate pair"));
            }
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        }
        char::from_u32(code).ok_or_else(|| self.error("half of a surrogate pair"))
    }

    fn code_unit(&mut self) -> Result<u32, Error> {
        if self.take(b'u') {
            let digits = self
                .text
                .as_bytes()
                .get(self.at..self.at + 4)
                .unwrap_or_default();
            let mut hex = digits.iter().map(|&digit| (digit as char).to_digit(16));
            let code = hex.try_fold(0, |code, digit| Some(code << 4 | digit?));
            if let (4, Some(code)) = (digits.len(), code) {
                self.at += 4;
                return Ok(code);
            }
        }
        Err(self.error("\\u and four hexadecimal digits are expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    /// What another reader makes of a text, in our terms; nothing if it refuses it.
    fn oracle(text: &str) -> Option<Value> {
        fn convert(value: serde_json::Value) -> Value {
            match value {
                serde_json::Value::Null => Value::Null,
                serde_json::Value::Bool(_) => Value::Boolean,
                serde_json::Value::Number(_) => Value::Number,
                serde_json::Value::String(text) => Value::String(text),
                serde_json::Value::Array(items) => {
                    Value::Array(items.into_iter().map(convert).collect())
                }
                serde_json::Value::Object(members) => Value::Object(
                    members
                        .into_iter()
                        .map(|(key, value)| (key, convert(value)))
                        .collect(),
                ),
            }
        }
        serde_json::from_str(text).ok().map(convert)
    }

    /// The other reader does not keep the order of members.
    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(mut members) => {
                members.sort_by(|(a, _), (b, _)| a.cmp(b));
                Value::Object(
                    members
                        .into_iter()
                        .map(|(key, value)| (key, sorted(value)))
                        .collect(),
                )
            }
            Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
            other => other,
        }
    }

    #[test]
    fn it_reads_what_others_read() {
        let texts = [
            r#"null"#,
            r#" [true, false, -0, 0.5, 1e3, 12E-7, -1.25e+2, "x", [], {}] "#,
            r#"{"a": {"b": [1, {"c": null}]}, "d": ""}"#,
            "\"\\\"\\\\\\/\\b\\f\\n\\r\\t \\u00e9 \\ud83d\\ude00 é😀\"",
            "\t\r\n[ ]\n",
        ];
        for text in texts {
            assert_eq!(parse(text).ok(), oracle(text), "{text}");
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn it_refuses_what_others_refuse() {
        let texts = [
            "",
            " ",
            "nul",
            "tru",
            "[",
            "]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:2}",
            "'a'",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"a\nb\"",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "1 2",
            "[1]]",
            "null x",
            "\u{feff}null",
            "NaN",
        ];
        for text in texts {
            assert!(oracle(text).is_none(), "{text}");
            assert!(parse(text).is_err(), "{text}");
        }
    }

    /// Every text that differs by one character from a good one is judged as by another reader.
    #[test]
    fn mutations_are_judged_as_by_others() {
        let good = "{\"a\": [\"x\\n\\u00e9\", -1.5e2, true], \"b\": {\"c\": null}}";
        for at in 0..good.len() {
            for new in [
                "", "\"", "\\", "{", "}", "[", "]", ",", ":", "0", "e", ".", " ", "u", "é",
            ] {
                let text = [&good[..at], new, &good[at + 1..]].concat();
                assert_eq!(parse(&text).ok().map(sorted), oracle(&text), "{text}");
            }
        }
    }

    #[test]
    fn repeated_keys_are_refused() {
        let error = parse(r#"{"a": 1, "a": 2}"#).unwrap_err().to_string();
        assert_eq!(error, "\"a\" is given twice");
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(parse(&("[".repeat(16) + &"]".repeat(16))).is_ok());
        let error = parse(&"[".repeat(100_000)).unwrap_err().to_string();
        assert_eq!(error, "line 1, column 18: too many levels of nesting");
    }

    #[test]
    fn errors_say_where() {
        let error = parse("{\n \"é\": tru }").unwrap_err().to_string();
        assert_eq!(error, "line 2, column 7: a value is expected");
    }
}
