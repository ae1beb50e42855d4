//! What a file can be called.

use std::borrow::Borrow;

/// Linux's NAME_MAX.
pub const MAX_NAME: usize = 255;

/// A file's name in its directory: 1 to 255 bytes, any but `/` and NUL; neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// `None` where no file can be called so.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let fits = (1..=MAX_NAME).contains(&bytes.len());
        let is_name = fits && !bytes.contains(&b'/') && !bytes.contains(&0);
        (is_name && bytes != b"." && bytes != b"..").then(|| Self(bytes.into()))
    }

    /// As it is in a directory.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
