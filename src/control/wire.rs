//! Numbers and text in messages.

use crate::VERSION;

/// No text has more bytes.
const LONGEST_TEXT: usize = 4096;

/// A message that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// It ends too early.
    #[error("a message is cut short")]
    Short,
    /// It goes on behind its end.
    #[error("a message goes on behind its end")]
    Long,
    /// A later kvmlet may have written it.
    #[error("a message is of version {0}")]
    Version(u8),
    /// A later kvmlet may have written it.
    #[error("a message is of the unknown kind {0}")]
    Kind(u8),
    /// A field has a value that it cannot have.
    #[error("a message has {0} in a field that cannot have it")]
    Value(u8),
    /// Text that is not UTF-8, or is too long.
    #[error("a message has text that is not text")]
    Text,
}

/// A message that is written.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub fn new(kind: u8) -> Self {
        Self(vec![VERSION, kind])
    }

    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Text, cut where it is too long.
    pub fn text(self, text: &str) -> Self {
        let mut end = text.len().min(LONGEST_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        self.bytes(&(text.len() as u16).to_le_bytes())
            .bytes(text.as_bytes())
    }

    /// Something that may be there or not.
    pub fn option<T>(self, value: Option<T>, write: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            None => self.u8(0),
            Some(value) => write(self.u8(1), value),
        }
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// What is left to read of a message.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A message's kind, and the rest.
    pub fn new(message: &'a [u8]) -> Result<(u8, Self), Malformed> {
        let mut reader = Self(message);
        match reader.u8()? {
            VERSION => Ok((reader.u8()?, reader)),
            other => Err(Malformed::Version(other)),
        }
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Malformed::Value(other)),
        }
    }

    pub fn text(&mut self) -> Result<String, Malformed> {
        let count = usize::from(self.array().map(u16::from_le_bytes)?);
        if count > LONGEST_TEXT {
            return Err(Malformed::Text);
        }
        let text = str::from_utf8(self.bytes(count)?).map_err(|_| Malformed::Text)?;
        let harmless = |char: char| match char {
            '\n' | '\t' => char,
            char if char.is_control() => char::REPLACEMENT_CHARACTER,
            char => char,
        };
        Ok(text.chars().map(harmless).collect())
    }

    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        self.flag()?.then(|| read(self)).transpose()
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), Malformed> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Malformed::Long),
        }
    }
}
