//! What a client is answered.

use std::fmt::Write;

/// What almost all answers are.
pub const JSON: &str = "application/json";

/// What a client is answered, as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Three digits.
    pub status: u16,
    /// What there is to say.
    pub body: Option<String>,
    /// What that is.
    pub kind: &'static str,
    /// Further fields of its head, which are no one's text but this program's.
    pub fields: Vec<(&'static str, String)>,
    /// What was asked for will not be understood one day.
    pub is_deprecated: bool,
}

impl Answer {
    /// Something that was asked for.
    pub fn told(body: String) -> Self {
        Self::new(200, Some(body))
    }

    /// It is done, and there is no more to say.
    pub const fn done() -> Self {
        Self::new(204, None)
    }

    /// Of a status, with a body.
    pub const fn new(status: u16, body: Option<String>) -> Self {
        Self {
            status,
            body,
            kind: JSON,
            fields: Vec::new(),
            is_deprecated: false,
        }
    }

    /// The same, as something else than JSON.
    pub fn of_kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    /// With one more field in its head.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// As bytes, after which the connection is closed or not. Without a reason in words: Firecracker gives none.
    pub fn to_bytes(&self, server: &str, closes: bool) -> Vec<u8> {
        let connection = match closes {
            true => "close",
            false => "keep-alive",
        };
        let mut text = format!(
            "HTTP/1.1 {} \r\nServer: {server}\r\nConnection: {connection}\r\n",
            self.status
        );
        if self.is_deprecated {
            text.push_str("Deprecation: true\r\n");
        }
        for (name, value) in &self.fields {
            // Writing to a String cannot fail.
            let _ = write!(text, "{name}: {value}\r\n");
        }
        if let Some(body) = &self.body {
            let _ = write!(
                text,
                "Content-Type: {}\r\nContent-Length: {}\r\n\r\n{body}",
                self.kind,
                body.len()
            );
        } else if self.status == 204 {
            // RFC 9110 §8.6: a length is not sent with this status.
            text.push_str("\r\n");
        } else {
            text.push_str("Content-Length: 0\r\n\r\n");
        }
        text.into_bytes()
    }

    /// The head of an answer whose body has no length yet: it ends with the connection.
    pub fn to_head(&self, server: &str) -> Vec<u8> {
        let mut text = format!(
            "HTTP/1.1 {} \r\nServer: {server}\r\nConnection: close\r\nContent-Type: {}\r\n",
            self.status, self.kind
        );
        for (name, value) in &self.fields {
            // Writing to a String cannot fail.
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_where_they_end() {
        let text =
            |answer: Answer, closes| String::from_utf8(answer.to_bytes("S", closes)).unwrap();
        assert_eq!(
            text(Answer::told("{}".into()), false),
            "HTTP/1.1 200 \r\nServer: S\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        );
        assert_eq!(
            text(Answer::done(), true),
            "HTTP/1.1 204 \r\nServer: S\r\nConnection: close\r\n\r\n"
        );
        assert!(text(Answer::new(408, None), true).ends_with("Content-Length: 0\r\n\r\n"));
    }
}
