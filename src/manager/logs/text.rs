//! Any bytes as a JSON string, and back.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::fmt;
use std::fmt::Write;

/// Appends a JSON string with these bytes.
pub(super) fn push(line: &mut String, bytes: &[u8]) {
    line.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => line.push_str("\\\""),
                '\\' => line.push_str("\\\\"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                '\t' => line.push_str("\\t"),
                '\0'..' ' => push_escape(line, c as u32),
                c => line.push(c),
            }
        }
        for byte in chunk.invalid() {
            push_escape(line, 0xdc00 + u32::from(*byte));
        }
    }
    line.push('"');
}

fn push_escape(line: &mut String, code: u32) {
    // Writing to a String cannot fail.
    let _ = write!(line, "\\u{code:04x}");
}

/// A JSON string that may have half surrogates in it, as bytes.
#[derive(Debug)]
pub(super) struct AnyText(pub Vec<u8>);

impl<'de> Deserialize<'de> for AnyText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = AnyText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<AnyText, E> {
                Ok(AnyText(joined(bytes)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AnyText, E> {
                self.visit_bytes(text.as_bytes())
            }
        }
        // serde_json gives half surrogates to who asks for bytes, in the three bytes that UTF-8 would have for them.
        deserializer.deserialize_bytes(Bytes)
    }
}

/// With the bytes that U+DC80 to U+DCFF stand for.
fn joined(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        rest = match rest {
            [] => return text,
            [0xed, high @ (0xb2 | 0xb3), low @ 0x80..=0xbf, behind @ ..] => {
                text.push(0x80 | (high & 1) << 6 | low & 0x3f);
                behind
            }
            [byte, behind @ ..] => {
                text.push(*byte);
                behind
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(bytes: &[u8]) -> String {
        let mut line = String::new();
        push(&mut line, bytes);
        line
    }

    fn read(text: &str) -> Vec<u8> {
        serde_json::from_str::<AnyText>(text).unwrap().0
    }

    #[test]
    fn text_looks_as_one_expects() {
        assert_eq!(
            written("gr\u{fc}n \"a\\b\"\r\n\u{1b}[0m".as_bytes()),
            r#""grün \"a\\b\"\r\n\u001b[0m""#
        );
        assert_eq!(written(b"a\xffb\x80"), r#""a\udcffb\udc80""#);
        assert_eq!(
            read(r#""a\udcffb\udc80\u00e9\ud83d\ude00""#),
            [b"a\xffb\x80", "\u{e9}\u{1f600}".as_bytes()].concat()
        );
    }

    #[test]
    fn each_byte_is_read_back() {
        for byte in 0..=255 {
            for bytes in [
                vec![byte],
                vec![b'x', byte, b'y'],
                vec![byte; 3],
                vec![0xe2, byte, 0x82],
            ] {
                assert_eq!(read(&written(&bytes)), bytes);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let line = written(&bytes);
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(read(&line), bytes);
        }

        #[test]
        fn text_is_as_serde_json_reads_it(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&written(text.as_bytes())).unwrap(), text);
        }
    }
}
