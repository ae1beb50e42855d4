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
    /// A difference has pages that there are not.
    #[error("what it says of its pages makes no sense")]
    Pages,
    /// It is of use with its base alone.
    #[error("it has only what has changed since another snapshot, its base")]
    Difference,
    /// It has none.
    #[error("it is whole, and has no base")]
    Whole,
    /// What was named as the base is a difference itself.
    #[error("it has only what has changed since another snapshot, and is nobody's base")]
    NoBase,
    /// What was named as the base is not it.
    #[error("it is not the snapshot since which the other was taken")]
    OtherBase,
    /// It was it.
    #[error("it has changed since it was the base of another snapshot")]
    ChangedBase,
    /// Others cannot name it.
    #[error("it was written by an earlier kvmlet, and has no id by which it could be a base")]
    Nameless,
}

/// What the kernel has said is that again.
impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Read(error) => error,
            fault => Self::other(fault),
        }
    }
}
