//! What a client is answered.

use std::fmt::Write;

/// What a client is answered, as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Three digits.
    pub status: u16,
    /// JSON.
    pub body: Option<String>,
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
            is_deprecated: false,
        }
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
        if let Some(body) = &self.body {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
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
