//! What an instance runs in, beside what it is.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// What an instance runs in. Walls and shares are said in the [configuration](kvmlet_spec::VmConfig): `jail`,
/// `best_effort`, `quota`.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Surroundings {
    /// What the guest reads from its console; nothing if there is none.
    pub input: Option<OwnedFd>,
    /// Where the guest's console goes: a file, a pipe, a socket. Nowhere if there is none. A reader that stands still holds
    /// up the guest.
    pub output: Option<OwnedFd>,
    /// Where messages of kvmlet go, a line each; this program's standard error if there is none. Nobody waits for its
    /// reader.
    pub log: Option<OwnedFd>,
    /// How much is said there.
    pub verbosity: Verbosity,
    /// The VM goes on when this program has ended, or has [left](super::Running::leave) it alone.
    pub outlives: bool,
    /// A file to which it is written how the run has ended, as JSON of [`Outcome`](kvmlet_spec::Outcome): for a program
    /// that may not be there to be told.
    pub outcome: Option<PathBuf>,
    /// A Unix socket that is made there, for this user only, and removed at the end: by it another program, or this one in its
    /// next life, [finds and holds](super::Instance::attach) the VM, or asks it for something
    /// (`kvmlet_control::Connection`). One that is there and that nobody listens at is replaced.
    pub control: Option<PathBuf>,
}

/// The streams of an instance that was made before anybody wanted it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Streams {
    /// What is written here the guest reads from its console.
    pub input: OwnedFd,
    /// What the guest's console says. A reader that stands still holds up the guest.
    pub output: OwnedFd,
    /// Messages of kvmlet, a line each. Nobody waits for its reader.
    pub log: OwnedFd,
}

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verbosity {
    /// What somebody should look at.
    #[default]
    Warnings,
    /// What happens.
    Steps,
    /// All details.
    Details,
}
