//! What can be wrong with a snapshot.

use std::io;

/// What is wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The kernel says no.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// It is no file.
    #[error("it is no regular file")]
    Kind,
    /// It is a file of another kind.
    #[error("it is no snapshot")]
    Foreign,
    /// Another kvmlet has written it.
    #[error("it is of version {0}, and this kvmlet reads version {known}", known = super::layout::VERSION)]
    Version(u32),
    /// It ends too early.
    #[error("it is cut short")]
    Short,
    /// It says of itself that it is longer or shorter than it can be.
    #[error("its length makes no sense")]
    Length,
    /// A section is not what was written.
    #[error("its section of kind {0} has changed since it was written")]
    Checksum(u32),
    /// Checksums of memory are not what was written.
    #[error("the mark at its end has changed since it was written")]
    End,
    /// Guest memory is not what was written.
    #[error("guest memory in it has changed since it was written, at {0:#x} of the file")]
    Memory(u64),
    /// A later kvmlet may have written it.
    #[error("its section of kind {0} is not known to this kvmlet, which cannot do without it")]
    Unknown(u32),
    /// A section is not there.
    #[error("it has no section of kind {0}")]
    Missing(u32),
    /// A section makes no sense.
    #[error("its section of kind {0} makes no sense")]
    Section(u32),
}
