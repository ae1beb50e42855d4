//! A body that comes in chunks (RFC 9112 §7.1), as it comes.

/// No line between chunks is longer, nor are all fields behind the last one.
const LONGEST_LINE: usize = 8 << 10;

/// How much of a body has come.
#[derive(Debug, Default)]
pub struct Chunks {
    at: At,
    /// The line that is being read, and all behind the last chunk.
    line: Vec<u8>,
}

/// Where in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// A line with a length.
    #[default]
    Length,
    /// In a chunk, of which that many bytes are left.
    Chunk(u64),
    /// The end of its line.
    Behind,
    /// Fields behind the last one, which has to be followed by an empty line.
    Fields,
    End,
}

impl Chunks {
    /// Takes what of the body is there, and leaves what is behind it.
    pub fn take(&mut self, bytes: &mut Vec<u8>) -> Result<Vec<u8>, &'static str> {
        let (mut content, mut read) = (Vec::new(), 0);
        while read < bytes.len() && !self.is_over() {
            if let At::Chunk(left) = self.at {
                let count = usize::try_from(left).unwrap_or(usize::MAX);
                let count = count.min(bytes.len() - read);
                content.extend_from_slice(&bytes[read..read + count]);
                read += count;
                self.at = match left - count as u64 {
                    0 => At::Behind,
                    left => At::Chunk(left),
                };
                continue;
            }
            self.line.push(bytes[read]);
            read += 1;
            if self.line.len() > LONGEST_LINE {
                return Err("a line between chunks is too long");
            }
            if self.line.ends_with(b"\n") {
                self.at = self.line_end()?;
            }
        }
        bytes.drain(..read);
        Ok(content)
    }

    /// All has come.
    pub fn is_over(&self) -> bool {
        self.at == At::End
    }

    fn line_end(&mut self) -> Result<At, &'static str> {
        let line = self.line.strip_suffix(b"\r\n");
        let line = line.ok_or("a line between chunks ends in CR and LF")?;
        let next = match self.at {
            At::Length => match length(line).ok_or("a chunk has no length")? {
                0 => At::Fields,
                length => At::Chunk(length),
            },
            At::Behind if line.is_empty() => At::Length,
            At::Behind => return Err("a chunk is longer than it says"),
            // Nobody wants to know them.
            At::Fields if !line.is_empty() && !line.ends_with(b"\r\n") => return Ok(At::Fields),
            _ => At::End,
        };
        self.line.clear();
        Ok(next)
    }
}

/// Hexadecimal digits, and what is said behind a semicolon.
fn length(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], at_once: usize) -> Result<(Vec<u8>, Vec<u8>, bool), &'static str> {
        let (mut chunks, mut bytes, mut all) = (Chunks::default(), Vec::new(), Vec::new());
        for part in text.chunks(at_once) {
            bytes.extend_from_slice(part);
            all.extend(chunks.take(&mut bytes)?);
        }
        Ok((all, bytes, chunks.is_over()))
    }

    #[test]
    fn a_body_ends_with_its_last_chunk() {
        let text = b"2\r\nab\r\nA;x=\"y\"\r\n0123\r\n6789\r\n0\r\nA: b\r\nC: d\r\n\r\nGET /";
        for at_once in [1, 2, 3, 7, 100] {
            let (all, rest, is_over) = read(text, at_once).unwrap();
            assert_eq!(all, b"ab0123\r\n6789");
            assert_eq!((&*rest, is_over), (&b"GET /"[..], true), "{at_once}");
        }
        for whole in [&b"0\r\n\r\n"[..], b"1 \r\nx\r\n000\r\n\r\n"] {
            assert!(read(whole, 1).unwrap().2);
            let cut = &whole[..whole.len() - 1];
            assert!(!read(cut, 1).unwrap().2);
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let long = [vec![b'1'; LONGEST_LINE], b"\r\n".to_vec()].concat();
        for text in [
            &b"x\r\n"[..],
            b"\r\n",
            b"-1\r\n",
            b"+1\r\na",
            b"1\na\r\n",
            b"1\r\nab\r\n",
            b"11111111111111111\r\n",
            b"0x1\r\na\r\n",
            &long,
        ] {
            assert!(read(text, 3).is_err(), "{}", text.escape_ascii());
        }
    }
}
