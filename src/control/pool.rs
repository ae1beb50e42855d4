//! A pool: a process that keeps VMs which were restored and have not run, for whoever asks for one.
//!
//! Its socket keeps the bounds of messages (`SOCK_SEQPACKET`). Who connects is of the pool's user, asks for one thing after the
//! other, and is answered in turn. A VM comes as descriptors, the first of which is the [channel](Channel) of its supervisor: the
//! VM is whose that is, and ends when it is closed.

use crate::address;
use crate::connection::until;
use crate::passing::receive_all;
use crate::wire::{Reader, Writer};
use crate::{Channel, Malformed};
use rustix::event::PollFlags;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, send, socket_with,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// No message of a pool is longer.
pub const POOL_BYTES: usize = 8 << 10;
/// What a VM is: its channel, the ends of its streams, and a handle of its supervisor.
pub const POOL_DESCRIPTORS: usize = 5;

/// Something that a pool is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolRequest {
    /// A VM. If there is none, the answer waits until there is one, or it is known that there will be none for now.
    Take,
    /// How it is.
    Status,
    /// To end, with all VMs that nobody has taken. It is answered when they are gone.
    End,
}

/// What a pool says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolAnswer {
    /// A VM, whose guest runs on from now; with it come its descriptors.
    Taken {
        /// The number of its supervisor's process, as the pool sees it.
        process: u32,
    },
    /// It is not done, and why.
    Refused(String),
    /// How it is.
    Status(PoolStatus),
    /// It has ended.
    Ended,
}

/// How a pool is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// VMs that wait to be taken.
    pub ready: u32,
    /// VMs that were taken since it began.
    pub taken: u32,
    /// Why it has less than it is to have, if it tried in vain.
    pub lack: Option<String>,
}

const TAKE: u8 = 1;
const STATUS: u8 = 2;
const END: u8 = 3;
const TAKEN: u8 = 4;
const REFUSED: u8 = 5;
const ENDED: u8 = 6;

impl PoolRequest {
    /// As a message.
    pub fn encode(self) -> Vec<u8> {
        Writer::new(match self {
            Self::Take => TAKE,
            Self::Status => STATUS,
            Self::End => END,
        })
        .finish()
    }

    /// Of a message.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let (kind, reader) = Reader::new(message)?;
        reader.finish()?;
        match kind {
            TAKE => Ok(Self::Take),
            STATUS => Ok(Self::Status),
            END => Ok(Self::End),
            other => Err(Malformed::Kind(other)),
        }
    }
}

impl PoolAnswer {
    /// As a message.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Taken { process } => Writer::new(TAKEN).u32(*process),
            Self::Refused(why) => Writer::new(REFUSED).text(why),
            Self::Status(status) => Writer::new(STATUS)
                .u32(status.ready)
                .u32(status.taken)
                .option(status.lack.as_deref(), Writer::text),
            Self::Ended => Writer::new(ENDED),
        }
        .finish()
    }

    /// Of a message.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let (kind, mut reader) = Reader::new(message)?;
        let answer = match kind {
            TAKEN => Self::Taken {
                process: reader.u32()?,
            },
            REFUSED => Self::Refused(reader.text()?),
            STATUS => Self::Status(PoolStatus {
                ready: reader.u32()?,
                taken: reader.u32()?,
                lack: reader.option(Reader::text)?,
            }),
            ENDED => Self::Ended,
            other => return Err(Malformed::Kind(other)),
        };
        reader.finish()?;
        Ok(answer)
    }
}

/// Why a pool gives nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// It says why.
    #[error("{0}")]
    Refused(String),
    /// Its process has ended, or does not know this user.
    #[error("the pool has closed the connection")]
    Closed,
    /// It has not answered in time.
    #[error("the pool has not answered within {} s", .0.as_secs())]
    Late(Duration),
    /// What it says is no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The socket failed.
    #[error("the pool's socket cannot be used")]
    Io(#[from] io::Error),
}

/// Whoever takes VMs of a pool. A connection is good for as many as one likes.
#[derive(Debug)]
pub struct Pool(OwnedFd);

/// A VM that was taken: its guest runs on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Taken {
    /// By which its supervisor tells what becomes of it, and is asked for things. When it is closed, the VM ends.
    pub channel: Channel,
    /// What is written here is typed at its console.
    pub input: OwnedFd,
    /// What its console says.
    pub output: OwnedFd,
    /// What its supervisor has to say, in words.
    pub log: OwnedFd,
    /// A handle of its supervisor's process (pidfd_open(2)).
    pub supervisor: OwnedFd,
    /// The number of that process, as the pool sees it.
    pub process: u32,
}

impl Pool {
    /// The pool with that socket.
    ///
    /// # Errors
    /// What the kernel says: there is none, or none that this user may use.
    pub fn to(path: &Path) -> io::Result<Self> {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
        let (address, _around) = address::of(path)?;
        connect(&socket, &address)?;
        ioctl_fionbio(&socket, true)?;
        Ok(Self(socket))
    }

    /// Takes a VM, whose guest runs on from now: with time of its own, random numbers of its own, and nobody else's.
    ///
    /// # Errors
    /// Why there is none.
    pub fn take(&mut self, patience: Duration) -> Result<Taken, PoolError> {
        let (answer, descriptors) = self.ask(PoolRequest::Take, patience)?;
        let PoolAnswer::Taken { process } = answer else {
            return Err(Malformed::Value(0).into());
        };
        let count = descriptors.len();
        match <[OwnedFd; POOL_DESCRIPTORS]>::try_from(descriptors) {
            Ok([channel, input, output, log, supervisor]) => Ok(Taken {
                channel: channel.into(),
                input,
                output,
                log,
                supervisor,
                process,
            }),
            Err(_) => Err(Malformed::Value(count as u8).into()),
        }
    }

    /// How it is.
    ///
    /// # Errors
    /// When it does not say so.
    pub fn status(&mut self, patience: Duration) -> Result<PoolStatus, PoolError> {
        match self.ask(PoolRequest::Status, patience)?.0 {
            PoolAnswer::Status(status) => Ok(status),
            _ => Err(Malformed::Value(0).into()),
        }
    }

    /// Has it end, with all VMs that nobody has taken. When this returns they are gone.
    ///
    /// # Errors
    /// When it does not.
    pub fn end(mut self, patience: Duration) -> Result<(), PoolError> {
        match self.ask(PoolRequest::End, patience) {
            // One that has ended is what was wanted.
            Ok(_) | Err(PoolError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn ask(
        &mut self,
        request: PoolRequest,
        patience: Duration,
    ) -> Result<(PoolAnswer, Vec<OwnedFd>), PoolError> {
        match send(&self.0, &request.encode(), SendFlags::NOSIGNAL) {
            Ok(_) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(PoolError::Closed),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let deadline = Instant::now() + patience;
        let mut message = vec![0; POOL_BYTES];
        loop {
            match receive_all(&self.0, &mut message, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Err(PoolError::Closed),
                Ok((count, descriptors)) => match PoolAnswer::decode(&message[..count])? {
                    PoolAnswer::Refused(why) => return Err(PoolError::Refused(why)),
                    answer => return Ok((answer, descriptors)),
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !until(self.0.as_fd(), PollFlags::IN, Some(deadline))? {
                        return Err(PoolError::Late(patience));
                    }
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}

/// Readable when it answers, or has ended.
impl AsFd for Pool {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        for request in [PoolRequest::Take, PoolRequest::Status, PoolRequest::End] {
            assert_eq!(PoolRequest::decode(&request.encode()), Ok(request));
        }
        let status = |lack: Option<&str>| {
            PoolAnswer::Status(PoolStatus {
                ready: 3,
                taken: u32::MAX,
                lack: lack.map(Into::into),
            })
        };
        for answer in [
            PoolAnswer::Taken { process: 7 },
            PoolAnswer::Refused("no memory".into()),
            status(None),
            status(Some("no memory")),
            PoolAnswer::Ended,
        ] {
            let message = answer.encode();
            assert!(message.len() <= POOL_BYTES);
            assert_eq!(PoolAnswer::decode(&message).as_ref(), Ok(&answer));
            for cut in 0..message.len() {
                assert!(PoolAnswer::decode(&message[..cut]).is_err());
            }
            assert!(PoolAnswer::decode(&[&message[..], &[0]].concat()).is_err());
        }
        assert_eq!(
            PoolAnswer::decode(&[crate::VERSION, 99]),
            Err(Malformed::Kind(99))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_are_not(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = PoolRequest::decode(&bytes);
            let _ = PoolAnswer::decode(&bytes);
        }
    }
}
