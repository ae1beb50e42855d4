//! What an instance is called that nobody has named: 64 hexadecimal digits that no other has, of which any beginning
//! will do that no other has either. The rules are docker's.

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// Digits of an id.
const DIGITS: usize = 64;
/// Digits that lists show.
const SHORT: usize = 12;

/// The id of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct InstanceId(String);

/// Text that is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 64 hexadecimal digits, in lower case")]
pub struct NotAnId;

impl InstanceId {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn random() -> io::Result<Self> {
        loop {
            let mut bytes = [0; DIGITS / 2];
            getrandom(&mut bytes, GetRandomFlags::empty())?;
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            // The beginning is to be no number: hosts that are called by it would be taken for addresses.
            if !text.as_bytes()[..SHORT].iter().all(u8::is_ascii_digit) {
                return Ok(Self(text));
            }
        }
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The beginning that lists show.
    pub fn short(&self) -> &str {
        &self.0[..SHORT]
    }
}

/// Can text be an id, or the beginning of one?
pub(crate) fn is_beginning(text: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (1..=DIGITS).contains(&text.len()) && text.bytes().all(is_digit)
}

impl TryFrom<String> for InstanceId {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        match text.len() == DIGITS && is_beginning(&text) {
            true => Ok(Self(text)),
            false => Err(NotAnId),
        }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_made_and_read() {
        let (one, other) = (InstanceId::random().unwrap(), InstanceId::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(InstanceId::try_from(one.to_string()), Ok(one.clone()));
        assert!(one.as_str().starts_with(one.short()) && one.short().len() == 12);
        assert!(one.short().parse::<u64>().is_err());
        for text in ["", "abc", &"g".repeat(64), &"A".repeat(64), &"a".repeat(65)] {
            assert_eq!(InstanceId::try_from(text.to_owned()), Err(NotAnId));
        }
    }
}
