//! Whose copies are, and why there are none.

use std::io;
use std::path::{Path, PathBuf};

use kvmlet_contract::channel::FrameError;

use crate::agent::AgentError;

/// Whose copies are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whoever copies: on the host this process's user, in the guest root. Nobody's rights come along: no set-user-ID, and of
    /// extended attributes only a user's own.
    Mine,
    /// As they were, with all that belongs to that. On the host that takes root, and trust in the guest.
    Theirs,
}

/// Why files are not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The agent is of no use.
    #[error(transparent)]
    Agent(AgentError),
    /// The guest cannot.
    #[error("the guest {0}")]
    Guest(String),
    /// A path of a guest that says of no copy how it is called.
    #[error("`{}` has no name that its copy in a directory could have; name the copy", .0.escape_debug())]
    Nameless(String),
    /// This host cannot.
    #[error("cannot {what} {}: {source}", path.display())]
    Host {
        /// What is done to the file.
        what: &'static str,
        /// Which file that is.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A guest sent what cannot be.
    #[error("the guest's agent sent {0}")]
    Frame(FrameError),
    /// A guest sent what makes no sense, or is not made on a host.
    #[error("the guest's agent sent {what}: {}", path.display())]
    Nonsense {
        /// What that is.
        what: &'static str,
        /// Where that would be on this host.
        path: PathBuf,
    },
}

impl From<AgentError> for CopyError {
    fn from(error: AgentError) -> Self {
        Self::Agent(error)
    }
}

impl From<FrameError> for CopyError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// As a path names it, for whoever is told.
pub(super) fn host(what: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> CopyError {
    move |error| CopyError::Host {
        what,
        path: path.to_path_buf(),
        source: error.into(),
    }
}
