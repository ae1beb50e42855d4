//! Why there can be no sockets between guest and host.

use kvmlet_spec::Advice;
use std::io;
use std::path::PathBuf;

/// What is wrong with the host's side of sockets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Somebody listens there.
    #[error("`{}` is in use: a program listens there", .path.display())]
    Live {
        /// The path.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("`{}` is there already, and not a socket", .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot make the socket `{}`", .path.display())]
    Unmade {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host gives no thread, socket or event.
    #[error("the host cannot serve sockets between guest and host")]
    Host(#[from] io::Error),
}

impl Error {
    pub(super) fn unmade(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Unmade {
            path: path.into(),
            source,
        }
    }
}

impl Error {
    /// The way out, where one is known.
    pub fn help(&self) -> Option<Advice> {
        let text = match self {
            Error::Live { path } => format!(
                "end that program (`fuser {}` tells which one), or choose another path",
                path.display()
            ),
            Error::NotASocket { .. } => "remove it, or choose another path".into(),
            Error::Unmade { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "make the directory first, or choose another path".into()
            }
            Error::Unmade { .. } => "choose a path where a socket can be made".into(),
            Error::Host(_) => return None,
        };
        Some(text.into())
    }
}
