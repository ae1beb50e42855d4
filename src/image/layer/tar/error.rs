//! Why archives are not read.

use std::io;

/// The most that the extended headers and the long names of a member have together.
pub const MAX_HEADER: u64 = 1 << 20;

/// Why an archive is not read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be read.
    #[error("an archive cannot be read at byte {at}")]
    Read {
        /// How much has been read.
        at: u64,
        /// Why it cannot.
        #[source]
        source: io::Error,
    },
    /// It ends in the middle of a member.
    #[error("an archive ends at byte {at}, in the middle of a member")]
    Truncated {
        /// How long it is.
        at: u64,
    },
    /// A header makes no sense.
    #[error("the header at byte {at} of an archive has no valid {field}")]
    Header {
        /// Where it is.
        at: u64,
        /// What of it is wrong.
        field: &'static str,
    },
    /// An extended header makes no sense.
    #[error("the extended header before byte {at} of an archive has no valid {field}")]
    Extended {
        /// Where it ends.
        at: u64,
        /// What of it is wrong.
        field: &'static str,
    },
    /// The headers of a member are longer than any that are needed.
    #[error(
        "headers of {length} bytes before one member, at byte {at} of an archive; more than {MAX_HEADER}"
    )]
    LongHeader {
        /// Where the one is that is too much.
        at: u64,
        /// What they have with it.
        length: u64,
    },
    /// A kind of member that is not a file.
    #[error("a member of type `{}` at byte {at} of an archive", .kind.escape_ascii())]
    Kind {
        /// Where it is.
        at: u64,
        /// Its type.
        kind: u8,
    },
}
