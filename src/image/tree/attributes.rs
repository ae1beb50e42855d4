//! What files of all kinds have.

use super::xattrs::Xattrs;

/// Owner, rights, time of the last change, and what else a file carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Rights, with set-user-ID, set-group-ID and sticky: the lower 12 bits, the others are not looked at.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// When the content was changed last.
    pub mtime: Time,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// A moment, since 1970 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// What is to be added, less than 10⁹.
    pub nanoseconds: u32,
}
