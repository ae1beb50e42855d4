use alloc::string::String;
use core::fmt;

/// Why a description of a guest cannot be understood. The message names the key or parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A `kvmlet.` parameter or a key of a JSON object that does not exist.
    UnknownKey {
        /// What was found, as the user wrote it.
        key: String,
        /// The keys that exist there, separated by commas.
        known: &'static str,
    },
    /// A parameter or key that may be given once was given again.
    Repeated {
        /// The parameter or key.
        key: String,
    },
    /// A parameter or key has a value that it cannot have.
    Value {
        /// The parameter or key.
        key: String,
        /// The value as it was written.
        value: String,
        /// What is wrong with it or what it should look like.
        reason: &'static str,
    },
    /// The service file is not JSON.
    Syntax {
        /// Line of the first offending character, from 1.
        line: usize,
        /// Its column in characters, from 1.
        column: usize,
        /// What was expected there.
        reason: &'static str,
    },
}

impl Error {
    pub(crate) fn value(key: &str, value: &str, reason: &'static str) -> Self {
        Self::Value {
            key: key.into(),
            value: value.into(),
            reason,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { key, known } => {
                write!(f, "unknown key \"{key}\" (known are {known})")
            }
            Self::Repeated { key } => write!(f, "\"{key}\" is given twice"),
            Self::Value { key, value, reason } => write!(f, "{key}: \"{value}\": {reason}"),
            Self::Syntax {
                line,
                column,
                reason,
            } => {
                write!(f, "line {line}, column {column}: {reason}")
            }
        }
    }
}

impl core::error::Error for Error {}
