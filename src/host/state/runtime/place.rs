//! Where a runtime directory may be: nobody but this user and root decides what is found by its path.

use super::{Error, PURPOSE};
use kvmlet_sys::environment;
use kvmlet_sys::trusted::{OTHERS_WRITE, Problem, outer_user, vouch_for_own, vouch_for_parent};
use std::path::{Path, PathBuf};

/// A directory in which the runtime directory may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `/run`, for those to whom it belongs.
    System,
    /// What XDG_RUNTIME_DIR says.
    Named(PathBuf),
    /// Where logind has it; a process that has no login, or another user's environment, does not know.
    Login(u32),
    /// `/tmp`, where others may be first.
    Shared(u32),
}

impl Place {
    /// All of them, the best first.
    pub fn all() -> impl Iterator<Item = Self> {
        let user = rustix::process::geteuid();
        let system = user.is_root().then_some(Self::System).into_iter();
        // Each is asked for when those before it are of no use.
        let named = std::iter::once_with(|| {
            // Others than absolute paths are to be ignored (XDG Base Directory Specification).
            let named = environment::variable("XDG_RUNTIME_DIR").map(PathBuf::from);
            named.filter(|path| path.is_absolute()).map(Self::Named)
        });
        let login = std::iter::once(Self::Login(user.as_raw()));
        // Root of a namespace is a user who has logged in outside.
        let outside = std::iter::once_with(move || {
            let user = outer_user(user.as_raw());
            [Self::Login(user), Self::Shared(user)]
        });
        let here = system.chain(named.flatten()).chain(login);
        here.chain(outside.flatten())
    }

    pub fn is_last(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// The path of the runtime directory there.
    ///
    /// # Errors
    /// When somebody else decides what is found by that path.
    pub fn vouched(&self) -> Result<PathBuf, Error> {
        let vouched = match self {
            Self::System => vouch_for_own(Path::new("/run")),
            Self::Named(path) => vouch_for_own(path),
            Self::Login(user) => vouch_for_own(&PathBuf::from(format!("/run/user/{user}"))),
            Self::Shared(user) => vouch_for_parent(&PathBuf::from(format!("/tmp/kvmlet-{user}"))),
        };
        vouched.map_err(|problem| problem.of(&PURPOSE))
    }

    /// What somebody has said deserves a word when it does not count. All else is as it is on many hosts.
    pub fn tell_unused(&self, error: &Error) {
        match (self, error.problem()) {
            (Self::Named(_), Problem::Parent { mode, .. }) if mode & OTHERS_WRITE != 0 => {
                log::warn!("XDG_RUNTIME_DIR is not used: {error}");
            }
            (Self::Named(_), _) => log::info!("XDG_RUNTIME_DIR is not used: {error}"),
            _ => log::debug!("{error}"),
        }
    }
}
