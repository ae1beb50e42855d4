//! What goes between a VM's process and who has the host's sockets for it: messages of one size, some with a stream.
//!
//! Neither side believes the other more than it must. The VM's process may say anything: whoever hears it takes numbers,
//! and no descriptor.

use kvmlet_vmm::devices::virtio::vsock::{FromHost, HostSide, Question};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg,
    socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A kind, a port and an identifier, in this machine's order.
const BYTES: usize = 16;

const CONNECT: u32 = 1;
const CONNECTED: u32 = 2;
const REFUSED: u32 = 3;
const ASK: u32 = 4;

fn encode(kind: u32, port: u32, id: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..4].copy_from_slice(&kind.to_ne_bytes());
    bytes[4..8].copy_from_slice(&port.to_ne_bytes());
    bytes[8..].copy_from_slice(&id.to_ne_bytes());
    bytes
}

fn decode(bytes: [u8; BYTES]) -> (u32, u32, u64) {
    let [a, b, c, d, e, f, g, h, id @ ..] = bytes;
    let word = u32::from_ne_bytes;
    (
        word([a, b, c, d]),
        word([e, f, g, h]),
        u64::from_ne_bytes(id),
    )
}

/// Both ends.
pub(super) fn pair() -> io::Result<(HostEnd, VmEnd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (host, vm) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok((HostEnd(host), VmEnd(vm)))
}

/// The end of whoever has the host's sockets.
#[derive(Debug)]
pub(super) struct HostEnd(OwnedFd);

impl HostEnd {
    /// The next question; none if it is not one.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; any other when there will be none.
    pub fn receive(&self) -> io::Result<Option<Question>> {
        let mut bytes = [0; BYTES];
        match recv(&self.0, &mut bytes, RecvFlags::DONTWAIT)?.0 {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            BYTES => Ok(match decode(bytes) {
                (ASK, port, id) => Some(Question { id, port }),
                _ => None,
            }),
            _ => Ok(None),
        }
    }

    /// Passes on a program that wants to be connected.
    ///
    /// # Errors
    /// `WouldBlock` when the VM takes none now.
    pub fn connect(&self, port: u32, stream: BorrowedFd<'_>) -> io::Result<()> {
        self.say(encode(CONNECT, port, 0), Some(stream))
    }

    /// Answers a question.
    ///
    /// # Errors
    /// `WouldBlock` when the VM takes no answer now.
    pub fn answer(&self, id: u64, stream: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let kind = stream.map_or(REFUSED, |_| CONNECTED);
        self.say(encode(kind, 0, id), stream)
    }

    fn say(&self, bytes: [u8; BYTES], stream: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(stream) = &stream {
            control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(
                stream,
            )));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, flags)?;
        Ok(())
    }
}

impl AsFd for HostEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The end of a VM's device.
#[derive(Debug)]
pub(super) struct VmEnd(OwnedFd);

impl AsFd for VmEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl HostSide for VmEnd {
    fn receive(&self) -> io::Result<FromHost> {
        let mut bytes = [0; BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.0, &mut buffers, &mut control, flags)?;
        let mut streams = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let stream = streams.next();
        match received.bytes {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            BYTES => {}
            _ => return Ok(FromHost::Nothing),
        }
        let (kind, port, id) = decode(bytes);
        Ok(match (kind, stream) {
            (CONNECT, Some(stream)) => FromHost::Connect { port, stream },
            (CONNECTED, Some(stream)) => FromHost::Connected { id, stream },
            // Without a stream: there was no number left for it in this process.
            (CONNECTED | REFUSED, None) => FromHost::Refused { id },
            _ => FromHost::Nothing,
        })
    }

    fn ask(&self, question: Question) -> io::Result<()> {
        let bytes = encode(ASK, question.port, question.id);
        match send(&self.0, &bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_said_is_heard() {
        let (host, vm) = pair().unwrap();
        assert_eq!(
            host.receive().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let question = Question {
            id: 1 << 40,
            port: u32::MAX,
        };
        vm.ask(question).unwrap();
        assert_eq!(host.receive().unwrap(), Some(question));
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        host.answer(7, Some(theirs.as_fd())).unwrap();
        drop(theirs);
        let Ok(FromHost::Connected { id: 7, stream }) = vm.receive() else {
            panic!("no stream")
        };
        UnixStream::from(stream).write_all(b"here").unwrap();
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert_eq!(said, "here");
        host.connect(80, ours.as_fd()).unwrap();
        assert!(matches!(
            vm.receive(),
            Ok(FromHost::Connect { port: 80, .. })
        ));
        host.answer(9, None).unwrap();
        assert!(matches!(vm.receive(), Ok(FromHost::Refused { id: 9 })));
        assert_eq!(vm.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(host);
        assert_eq!(
            vm.receive().unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert!(vm.ask(question).is_err());
    }

    /// A VM's process that somebody has taken over says anything.
    #[test]
    fn what_makes_no_sense_says_nothing() {
        let (host, vm) = pair().unwrap();
        for bytes in [&[0; 16][..], &[4; 15], &[4, 0, 0, 0], &[0xff; 100]] {
            send(&vm, bytes, SendFlags::empty()).unwrap();
            assert_eq!(host.receive().unwrap(), None, "{bytes:?}");
            send(&host, bytes, SendFlags::empty()).unwrap();
            assert!(matches!(vm.receive(), Ok(FromHost::Nothing)), "{bytes:?}");
        }
        // A descriptor is closed that nobody has asked for.
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        HostEnd(vm.0.try_clone().unwrap())
            .say(encode(ASK, 5, 6), Some(theirs.as_fd()))
            .unwrap();
        drop(theirs);
        assert_eq!(host.receive().unwrap(), Some(Question { id: 6, port: 5 }));
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    }
}
