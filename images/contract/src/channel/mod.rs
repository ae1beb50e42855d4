//! What host and guest say to each other once the guest runs: the frames between `kvmlet-init`, which is the guest's agent,
//! and its host.
//!
//! # Connections
//!
//! A connection is a stream of bytes: AF_VSOCK's, or a Unix socket where there is no VM. There are two sorts.
//!
//! * The guest's own, to [`AGENT_PORT`] of the host, opened before any service can run; the host takes the first and refuses
//!   all others, which are not from the agent. It carries the service. When it is lost (a restored guest has none), the host
//!   connects to the guest and takes the service over with [`Request::Attach`].
//! * Any number, up to [`MAX_SESSIONS`], from the host to [`AGENT_PORT`] of the guest. Each carries one process that is
//!   executed beside the service, or single requests. A reader who stands still thus holds up no other connection.
//!
//! The agent takes connections from the host only, and trusts it; the host trusts nothing that a guest says.
//!
//! # A connection's course
//!
//! Both sides start with their [`Request::Hello`] and [`Event::Hello`], without waiting for the other's; the smaller
//! version counts ([`agree`]). A process is described with `Begin` and as many `Describe` as the description takes
//! ([`ProcessSpec::encode`] makes it, [`Description`] reads it), and started with `Start`. The answer is `Started` or `Failed`;
//! the last word about a process is `Exited`. What it wrote before is sent before that, even if a process in the
//! background still holds the streams. The host answers the service's `Exited` with `PowerOff` when it has taken everything.
//!
//! # Flow control
//!
//! Each stream's receiver grants credit in bytes, nothing to begin with, and the sender sends no more than that.
//! So a reader of standard output who stands still does not keep standard error from moving.
//!
//! # Frames
//!
//! | bytes | |
//! |---|---|
//! | 0–3 | length of the payload, little endian, at most [`MAX_PAYLOAD`] |
//! | 4 | kind: below 0x80 from the host, others from the guest |
//! | 5–7 | zero |
//! | 8– | payload: fields in their order, integers little endian, bytes last and without a length of their own |
//!
//! Whoever gets a frame that breaks these rules, or one that makes no sense where it comes, ends the connection; the agent
//! says why first ([`Event::Failed`]).

mod client;
mod description;
mod event;
pub(crate) mod fields;
mod guest_process;
mod process_spec;
mod request;

pub use client::{Client, ClientError, MAX_BACKLOG, OUTPUT_WINDOW};
pub use description::{
    Description, DescriptionError, MAX_DESCRIPTION, MAX_FIELDS, MAX_STRING, Mount, SERIAL,
};
pub use event::{Ended, Event, Fault, MAX_MESSAGE, StopStep};
pub use fields::{FrameError, HEADER, MAX_PAYLOAD};
pub use guest_process::{GuestProcess, MAX_COMMAND, PROCESSES};
pub use process_spec::{MountSpec, ProcessSpec};
pub use request::{MAX_ENTROPY, Request, Role};

/// Where the agent listens in the guest, and where it is listened to on the host: a port that takes a privilege to bind.
pub const AGENT_PORT: u32 = 1023;

/// The agent's [tool](Role::Tool) that writes what is at a path, its second argument, to standard output: the records of
/// an [archive](crate::archive).
pub const PACK: &str = "pack";

/// The tool that makes files of the records from standard input: in the directory at a path or, if there is none, under that
/// name.
pub const UNPACK: &str = "unpack";

/// The tool that writes what the guest has changed of its root to standard output: the records of an [archive](crate::archive)
/// whose outermost item is the root. The attributes of an item come before what is in it. What was removed is a character
/// device with the number 0, and a directory that replaces another one has the attribute [`OPAQUE`].
pub const CHANGES: &str = "changes";

/// The same without the content of files.
pub const CHANGED_NAMES: &str = "changed-names";

/// The attribute of a directory of which nothing is seen that was there before; its value is `y`.
pub const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// The attribute of what was there before, and was changed.
pub const ORIGIN: &[u8] = b"trusted.overlay.origin";

/// The newest version of the frames, which is the one described here. With 2 came disks by serial number, filled mounts and
/// hosts in descriptions, which an agent that knows no more than 1 refuses; with 3 [`Request::Renew`].
pub const VERSION: u16 = 3;

/// The oldest version that is still understood.
pub const OLDEST_VERSION: u16 = 1;

/// How many connections from the host the agent has at once, at most.
pub const MAX_SESSIONS: usize = 64;

/// How much credit a sender remembers, in bytes: what is granted beyond is as good as this much.
pub const MAX_CREDIT: u32 = 1 << 30;

/// The version that both sides of a connection use when the other one has said `theirs`; nothing if there is none.
pub const fn agree(theirs: u16) -> Option<u16> {
    let version = if theirs < VERSION { theirs } else { VERSION };
    if version < OLDEST_VERSION {
        return None;
    }
    Some(version)
}

/// What a process writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output; of a process with a terminal all that it writes there.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Output {
    /// Both, each at its [`index`](Self::index).
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// Its place in what there is for each.
    pub const fn index(self) -> usize {
        self.number() as usize - 1
    }

    /// As it is sent, and as descriptors are numbered.
    pub const fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// What goes over a connection in one direction.
pub trait Message<'a>: Sized {
    /// Reads the first message in `bytes`, and says how long it is; nothing while it is incomplete.
    ///
    /// # Errors
    ///
    /// When what comes first is no message, and cannot become one by whatever follows.
    fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, FrameError>;

    /// Writes the message to the start of `out` and returns its length; nothing if it does not fit, or not into a frame.
    fn encode(&self, out: &mut [u8]) -> Option<usize>;
}

#[cfg(test)]
mod tests;
