//! Percent-encoding (RFC 3986 §2.1) of values on the kernel command line, which knows spaces,
//! quotes and nothing else.

use alloc::string::String;
use alloc::vec::Vec;

/// Appends `text` to `out` such that it survives the kernel's splitting into parameters: bytes
/// that are not printable ASCII, space, `"` and `%` become `%XX`. In a `field`, one of several
/// separated by commas, so does the comma.
pub(crate) fn encode(out: &mut String, text: &str, field: bool) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        let plain =
            byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%') && !(field && byte == b',');
        if plain {
            out.push(byte as char);
        } else {
            out.push('%');
            out.push(HEX[usize::from(byte >> 4)] as char);
            out.push(HEX[usize::from(byte & 15)] as char);
        }
    }
}

/// Undoes [`encode`], and refuses what cannot be an argument, a variable or a path.
pub(crate) fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| (b as char).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err("% must be followed by two hexadecimal digits (a literal % is %25)");
        };
        bytes.push((high << 4 | low) as u8);
    }
    if bytes.contains(&0) {
        return Err("contains a NUL byte");
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn encoded(text: &str, field: bool) -> String {
        let mut out = String::new();
        encode(&mut out, text, field);
        out
    }

    #[test]
    fn plain_text_stays_readable() {
        let text = "/usr/sbin/nginx-1.2_x:y=z,{a}'b'\\$~";
        assert_eq!(encoded(text, false), text);
    }

    #[test]
    fn what_the_kernel_would_split_is_encoded() {
        assert_eq!(
            encoded("a b\t\"c\"\n100%", false),
            "a%20b%09%22c%22%0A100%25"
        );
        assert_eq!(encoded("é", false), "%C3%A9");
        assert_eq!(encoded("a,b", true), "a%2Cb");
    }

    #[test]
    fn every_character_comes_back() {
        for c in ('\u{1}'..='\u{2ff}').chain(['€', '😀']) {
            let text = format!("x{c}y");
            for field in [false, true] {
                let coded = encoded(&text, field);
                assert!(
                    coded.bytes().all(|b| b.is_ascii_graphic() && b != b'"'),
                    "{coded}"
                );
                assert_eq!(decode(&coded), Ok(text.clone()));
            }
        }
    }

    #[test]
    fn broken_encodings_are_refused() {
        for text in ["%", "%4", "%zz", "a%2", "%%20"] {
            assert!(decode(text).is_err(), "{text}");
        }
        assert_eq!(decode("a%00b"), Err("contains a NUL byte"));
        assert_eq!(decode("%FF"), Err("is not UTF-8"));
        assert_eq!(decode("%c3%a9").as_deref(), Ok("é"));
    }
}
