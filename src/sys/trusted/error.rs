//! Why a directory is not used.

use super::Purpose;
use crate::users;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a directory is not used, and what it was wanted for.
#[derive(Debug)]
pub struct Error {
    purpose: &'static Purpose,
    problem: Problem,
}

/// What is wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// Somebody else has made it, or what is in its place.
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Others can have put anything there.
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is a file or a link in its place.
    NotADirectory {
        /// What should be a directory.
        path: PathBuf,
    },
    /// Somebody else decides what is found in a directory on the way to it.
    Parent {
        /// The directory around it.
        path: PathBuf,
        /// That, or one around that.
        part: PathBuf,
        /// Whose the part is.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// It cannot be made where it should be.
    Make {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It cannot be used.
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Problem {
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

    /// Names what it was that could not be used.
    pub fn of(self, purpose: &'static Purpose) -> Error {
        let problem = self;
        Error { purpose, problem }
    }
}

impl Error {
    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Is it that there can be none in this place, so that another one is to be looked for?
    pub fn is_about_parent(&self) -> bool {
        match &self.problem {
            Problem::Parent { .. } | Problem::Make { .. } => true,
            Problem::Unusable { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Problem::Foreign { .. } | Problem::Writable { .. } | Problem::NotADirectory { .. } => {
                false
            }
        }
    }

    /// What a person can do about it.
    pub fn help(&self) -> String {
        let elsewhere = format!(
            "set {} to a directory of your own that nobody else can write to",
            self.purpose.variable
        );
        match &self.problem {
            Problem::Foreign { path, .. } => format!(
                "{elsewhere}, or have an administrator remove `{}`",
                path.display()
            ),
            Problem::Writable { path, .. } => format!(
                "what is in it cannot be trusted: end this user's VMs, then `rm -r {}`",
                path.display()
            ),
            Problem::NotADirectory { path } => format!("remove `{}`", path.display()),
            Problem::Parent { .. } | Problem::Make { .. } | Problem::Unusable { .. } => elsewhere,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keeps = self.purpose.keeps;
        match &self.problem {
            Problem::Foreign { path, owner } => {
                let owner = users::describe(*owner);
                write!(
                    f,
                    "`{}`, where kvmlet keeps {keeps}, belongs to {owner}",
                    path.display()
                )
            }
            Problem::Writable { path, mode } => write!(
                f,
                "`{}`, where kvmlet keeps {keeps}, can be written by other users (mode {mode:04o})",
                path.display()
            ),
            Problem::NotADirectory { path } => write!(
                f,
                "`{}`, where kvmlet keeps {keeps}, is not a directory",
                path.display()
            ),
            Problem::Parent {
                path,
                part,
                owner,
                mode,
            } => write!(
                f,
                "`{}` cannot hold {keeps}: `{}` belongs to {} and has mode {mode:04o}",
                path.display(),
                part.display(),
                users::describe(*owner)
            ),
            Problem::Make { path, .. } => write!(
                f,
                "cannot make `{}`, where kvmlet keeps {keeps}",
                path.display()
            ),
            Problem::Unusable { path, .. } => write!(
                f,
                "cannot use `{}`, where kvmlet keeps {keeps}",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Make { source, .. } | Problem::Unusable { source, .. } => Some(source),
            _ => None,
        }
    }
}
