//! What a program writes, as text for lines of JSON: a character is in one piece, and what is no text is told in base64.

/// What is held back of an output: the beginning of a character, three bytes at most.
#[derive(Debug, Default)]
pub struct Text(Vec<u8>);

/// A piece of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// UTF-8.
    Text(String),
    /// Anything else, in base64.
    Base64(String),
}

impl Text {
    /// What can be told now.
    pub fn add(&mut self, bytes: &[u8]) -> Option<Piece> {
        let mut all = std::mem::take(&mut self.0);
        all.extend_from_slice(bytes);
        match std::str::from_utf8(&all) {
            // It may be whole with what comes next.
            Err(error) if error.error_len().is_none() => {
                self.0 = all.split_off(error.valid_up_to());
            }
            _ => {}
        }
        piece(all)
    }

    /// What is left at the end.
    pub fn rest(&mut self) -> Option<Piece> {
        piece(std::mem::take(&mut self.0))
    }
}

fn piece(bytes: Vec<u8>) -> Option<Piece> {
    if bytes.is_empty() {
        return None;
    }
    Some(match String::from_utf8(bytes) {
        Ok(text) => Piece::Text(text),
        Err(error) => Piece::Base64(base64(error.as_bytes())),
    })
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = bits >> (18 - 6 * place) & 63;
            match place <= three.len() {
                true => text.push(char::from(DIGITS[digit as usize])),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_in_one_piece() {
        let text = |text: &str| Some(Piece::Text(text.into()));
        let mut held = Text::default();
        assert_eq!(held.add(b"a\xc3"), text("a"));
        assert_eq!(held.add(b"\xa9b"), text("\u{e9}b"));
        assert_eq!(held.add(b"\xf0\x9f\x98"), None);
        assert_eq!(held.rest(), Some(Piece::Base64("8J+Y".into())));
        assert_eq!(held.rest(), None);
        assert_eq!(held.add(b"\xffab"), Some(Piece::Base64("/2Fi".into())));
    }

    #[test]
    fn what_is_no_text_is_told_in_base64() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"\xff\xfe\xfd\x00", "//79AA=="),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }
}
