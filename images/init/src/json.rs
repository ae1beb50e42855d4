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
