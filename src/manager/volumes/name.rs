//! Names of volumes, by docker's rules: those that nobody has named have an id of their own.

use crate::InstanceId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::str::FromStr;

/// What a file name can have, less what temporary names have beside.
const LONGEST: usize = 200;

/// A name: letters, digits, `_`, `.` and `-`, at least two, the first a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct VolumeName(String);

/// Text that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a name of a volume: {why}", text.escape_debug())]
pub struct NotAVolumeName {
    /// What the user wrote.
    pub text: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

impl VolumeName {
    /// One that no other volume has.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn random() -> io::Result<Self> {
        Ok(Self(InstanceId::random()?.as_str().into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = NotAVolumeName;

    fn from_str(text: &str) -> Result<Self, NotAVolumeName> {
        let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
        let why = match text.as_bytes() {
            [] | [_] => "it has two characters at least",
            [first, ..] if !first.is_ascii_alphanumeric() => {
                "the first character is a letter or a digit"
            }
            bytes if !bytes.iter().all(is_inner) => {
                "it is made of letters, digits, `_`, `.` and `-`"
            }
            bytes if bytes.len() > LONGEST => "it has 200 characters at most",
            _ => return Ok(Self(text.into())),
        };
        let text = text.into();
        Err(NotAVolumeName { text, why })
    }
}

impl TryFrom<String> for VolumeName {
    type Error = NotAVolumeName;

    fn try_from(text: String) -> Result<Self, NotAVolumeName> {
        text.parse()
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
