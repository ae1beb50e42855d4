//! What the device needs of its host: connected streams, which somebody else opens.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The host's side of a socket device: who holds the sockets that programs of the host connect to and listen on.
///
/// Its descriptor is readable when there is something to [receive](Self::receive) and writable when there is room to
/// [ask](Self::ask). Streams are connected stream sockets of this host, and do not block.
pub trait HostSide: AsFd + Send + Sync {
    /// The next that the host has to say.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; any other when there will never be anything again.
    fn receive(&self) -> io::Result<FromHost>;

    /// Asks the host for a connection to what listens on one of its ports. The answer comes when it comes.
    ///
    /// # Errors
    /// `WouldBlock` when it is to be asked later; any other when nobody is there.
    fn ask(&self, question: Question) -> io::Result<()>;
}

/// A guest wants to be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// For the answer to be told from others. No two questions of a VM have the same, also not after a reset.
    pub id: u64,
    /// The port.
    pub port: u32,
}

/// What the host says.
#[derive(Debug)]
pub enum FromHost {
    /// A program of the host is to be connected to what listens in the guest. Once the guest has accepted, the program is
    /// told `OK` and its own port.
    Connect {
        /// The guest's port.
        port: u32,
        /// The program.
        stream: OwnedFd,
    },
    /// The answer to a question: here it is.
    Connected {
        /// That of the question.
        id: u64,
        /// What listened.
        stream: OwnedFd,
    },
    /// The answer to a question: nobody listens, or none can be reached.
    Refused {
        /// That of the question.
        id: u64,
    },
    /// Something that says nothing; it is skipped.
    Nothing,
}
