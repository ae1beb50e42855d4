//! Why a runtime directory is not used.

use kvmlet_sys::users;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no runtime directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Somebody else has made it, or what is in its place.
    #[error("`{}`, where kvmlet notes what VMs have, belongs to {}", path.display(), users::describe(*owner))]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Others can have put anything there.
    #[error("`{}`, where kvmlet notes what VMs have, can be written by other users (mode {mode:04o})", path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is a file or a link in its place.
    #[error("`{}`, where kvmlet notes what VMs have, is not a directory", path.display())]
    NotADirectory {
        /// What should be a directory.
        path: PathBuf,
    },
    /// Somebody else decides what is found in a directory on the way to it.
    #[error(
        "`{}` cannot hold what kvmlet notes of VMs: `{}` belongs to {} and has mode {mode:04o}",
        path.display(), part.display(), users::describe(*owner)
    )]
    Parent {
        /// The directory around the runtime directory.
        path: PathBuf,
        /// It, or one around it.
        part: PathBuf,
        /// Whose that is.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// It cannot be made where it should be.
    #[error("cannot make `{}`, where kvmlet notes what VMs have", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It cannot be used.
    #[error("cannot use `{}`, where kvmlet notes what VMs have", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(super) fn unusable(path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Unusable {
            path: path.into(),
            source: source.into(),
        }
    }

    pub(super) fn unmade(path: &Path, source: io::Error) -> Self {
        Self::Make {
            path: path.into(),
            source,
        }
    }

    /// Is it that there can be none in this place, so that another one is to be looked for?
    pub(super) fn is_about_parent(&self) -> bool {
        match self {
            Self::Parent { .. } | Self::Make { .. } => true,
            Self::Unusable { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Foreign { .. } | Self::Writable { .. } | Self::NotADirectory { .. } => false,
        }
    }

    /// What a person can do about it.
    pub fn help(&self) -> String {
        let elsewhere =
            "set XDG_RUNTIME_DIR to a directory of your own that nobody else can write to";
        match self {
            Self::Foreign { path, .. } => format!(
                "{elsewhere}, or have an administrator remove `{}`",
                path.display()
            ),
            Self::Writable { path, .. } => format!(
                "what is in it cannot be trusted: end this user's VMs, then `rm -r {}`",
                path.display()
            ),
            Self::NotADirectory { path } => format!("remove `{}`", path.display()),
            Self::Parent { .. } | Self::Make { .. } | Self::Unusable { .. } => elsewhere.into(),
        }
    }
}
