//! Why a benchmark, or one start of it, ends early.

use kvmlet_command::{Advice, Remedy};
use kvmlet_sys::signals::Signals;
use std::io;
use std::path::PathBuf;

/// Why a benchmark cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that is started is not built.
    #[error("there is no `{}`", path.display())]
    NotBuilt {
        /// Where it should be.
        path: PathBuf,
    },
    /// The directory for bundles, images and sockets cannot be made or used.
    #[error("cannot use the directory `{}`", path.display())]
    Directory {
        /// The directory or a file below.
        path: PathBuf,
        /// What the host says.
        #[source]
        source: io::Error,
    },
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// A name of a contestant that there is not.
    #[error("there is no contestant `{name}`; there are {known}")]
    UnknownContestant {
        /// The name asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// A signal ended it.
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        let help = match self {
            Error::NotBuilt { .. } => "run `images/build bench` once",
            Error::Directory { .. } => {
                "set TMPDIR to a directory in which programs may be executed"
            }
            _ => return None,
        };
        Some(help.into())
    }
}

/// Why one start gave no times.
#[derive(Debug)]
pub(super) enum Halt {
    /// It failed, and why; the benchmark goes on.
    Failed(String),
    /// A signal arrived, and can still be read; the benchmark ends.
    Interrupted,
}

impl Error {
    /// The error of a benchmark that a signal ends.
    pub(super) fn interrupted(signals: &Signals) -> Self {
        let signal = signals.next().ok().flatten();
        Error::Interrupted(signal.unwrap_or(libc::SIGINT))
    }
}
