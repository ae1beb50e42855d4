//! What goes between a VM and passt: frames, each looked at.
//!
//! A VM's process keeps frames apart, each behind a header of virtio (12 bytes). passt has a stream of them, each behind its
//! length (four bytes, most significant first, as qemu's `-netdev stream`). What one side does not take in time stays with
//! the other: nothing is dropped for it, and no more than [`BUFFER`] bytes of either direction wait here.

use super::filter::Filter;
use super::handshake::{Acknowledgement, acknowledgement};
use super::packet::ETHERNET;
use super::routes::{HostRoutes, Routes};
use kvmlet_sys::frames::FrameSocket;
use kvmlet_sys::wait::{self, Slot};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recv, recvmsg, send, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Size of `virtio_net_hdr_v1` (virtio 1.2 §5.1.6).
const HEADER: usize = 12;
/// That of a frame towards the guest: its checksums have been looked at (VIRTIO_NET_HDR_F_DATA_VALID), and it is in one
/// buffer.
const CHECKED: [u8; HEADER] = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// Size of a length on the stream.
const LENGTH: usize = 4;
/// The longest frame: 64 KiB of IP with an Ethernet header.
const LONGEST: usize = ETHERNET + (1 << 16);
/// Of one direction, in bytes.
const BUFFER: usize = 256 << 10;
/// Frames of one direction before the other has its turn.
const BATCH: usize = 64;
/// Handshakes at a time whose end waits.
const PENDING: usize = 1024;
/// How soon it is looked again whether passt has read all; it takes some microseconds.
const LOOK: Duration = Duration::from_micros(500);

/// Why frames go through no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The VM has ended.
    #[error("the VM has ended")]
    Vm,
    /// passt has.
    #[error("passt has ended")]
    Passt,
    /// Nobody knows where the next frame begins.
    #[error("passt has sent a frame of {0} bytes")]
    Length(usize),
    /// The kernel does not give or take frames.
    #[error("frames cannot be carried: {0}")]
    Host(#[from] io::Error),
}

impl From<Errno> for Ended {
    fn from(error: Errno) -> Self {
        Self::Host(error.into())
    }
}

/// Bytes between two sides: what has come and has not gone on yet.
struct Waiting {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Waiting {
    fn new() -> Self {
        Self {
            bytes: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn content(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Room for at least this many bytes behind what waits, if there is as much.
    fn room(&mut self, least: usize) -> Option<&mut [u8]> {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
        if BUFFER - self.end < least && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = &mut self.bytes[self.end..];
        (room.len() >= least).then_some(room)
    }

    fn has_room(&self, least: usize) -> bool {
        BUFFER - (self.end - self.start) >= least
    }
}

/// A VM's interface and its passt, with what is on the way between them.
pub(super) struct Link<R> {
    vm: FrameSocket,
    passt: OwnedFd,
    filter: Filter<R>,
    to_passt: Waiting,
    to_vm: Waiting,
    /// The VM takes nothing just now.
    vm_is_full: bool,
    /// Ends of handshakes that wait for passt.
    pending: Vec<Acknowledgement>,
}

impl<R: Routes> Link<R> {
    pub fn new(vm: FrameSocket, passt: OwnedFd, filter: Filter<R>) -> Self {
        Self {
            vm,
            passt,
            filter,
            to_passt: Waiting::new(),
            to_vm: Waiting::new(),
            vm_is_full: false,
            pending: Vec::new(),
        }
    }

    /// What it waits for.
    fn slots(&self) -> [Slot<'_>; 2] {
        let slot = |fd, reads, writes| match (reads, writes) {
            (true, true) => Slot::usable(fd),
            (true, false) => Slot::readable(fd),
            (false, true) => Slot::writable(fd),
            (false, false) => Slot::NOTHING,
        };
        let takes_from_vm = self.to_passt.has_room(LENGTH + LONGEST);
        let vm = slot(self.vm.as_fd(), takes_from_vm, self.vm_is_full);
        let gives_passt = !self.to_passt.is_empty();
        let takes_from_passt = !self.vm_is_full;
        [vm, slot(self.passt.as_fd(), takes_from_passt, gives_passt)]
    }

    /// Carries on what there is, a bounded part of it: what is left is there at the next turn.
    fn turn(&mut self) -> Result<(), Ended> {
        self.take_from_vm()?;
        self.give_passt()?;
        self.end_handshakes();
        self.take_from_passt()?;
        self.give_vm()
    }

    /// Lets the guest go on in connections whose SYN+ACK passt has read: it confuses them with what comes at once behind.
    fn end_handshakes(&mut self) {
        if !self.pending.is_empty() && self.to_passt.is_empty() && unread(&self.passt) == 0 {
            for answer in self.pending.drain(..) {
                let _ = to_guest(&self.vm, &answer);
            }
        }
    }

    fn take_from_vm(&mut self) -> Result<(), Ended> {
        for _ in 0..BATCH {
            let Some(room) = self.to_passt.room(LENGTH + LONGEST) else {
                return Ok(());
            };
            let (length, room) = room.split_at_mut(LENGTH);
            let mut header = [0; HEADER];
            let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(room)];
            let mut nothing = RecvAncillaryBuffer::default();
            let flags = RecvFlags::DONTWAIT;
            let bytes = match recvmsg(&self.vm, &mut parts, &mut nothing, flags) {
                Ok(message) => message.bytes,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(Errno::CONNRESET) => 0,
                Err(error) => return Err(error.into()),
            };
            if bytes == 0 {
                return Err(Ended::Vm);
            }
            let frame = &room[..bytes.saturating_sub(HEADER).min(room.len())];
            if frame.len() <= LONGEST && self.filter.may_leave(frame) {
                // What finds no room comes again, as the guest's segment does.
                let pending = Some(&mut self.pending).filter(|it| it.len() < PENDING);
                if let (Some(pending), Some(answer)) = (pending, acknowledgement(frame)) {
                    pending.push(answer);
                }
                length.copy_from_slice(&(frame.len() as u32).to_be_bytes());
                self.to_passt.end += LENGTH + frame.len();
            }
        }
        Ok(())
    }

    fn give_passt(&mut self) -> Result<(), Ended> {
        while !self.to_passt.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.passt, self.to_passt.content(), flags) {
                Ok(bytes) => self.to_passt.start += bytes,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Ended::Passt),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn take_from_passt(&mut self) -> Result<(), Ended> {
        // A frame of which a part is here always finds room for the rest once those before it are gone.
        let Some(room) = self.to_vm.room(1) else {
            return Ok(());
        };
        match recv(&self.passt, room, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::CONNRESET) => Err(Ended::Passt),
            Ok((bytes, _)) => {
                self.to_vm.end += bytes;
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn give_vm(&mut self) -> Result<(), Ended> {
        self.vm_is_full = false;
        while let Some((length, rest)) = self.to_vm.content().split_first_chunk::<LENGTH>() {
            let length = u32::from_be_bytes(*length) as usize;
            if !(ETHERNET..=LONGEST).contains(&length) {
                return Err(Ended::Length(length));
            }
            let Some(frame) = rest.get(..length) else {
                return Ok(());
            };
            if self.filter.may_arrive(frame) {
                match to_guest(&self.vm, frame) {
                    Ok(()) => {}
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN | Errno::NOBUFS) => {
                        self.vm_is_full = true;
                        return Ok(());
                    }
                    Err(Errno::PIPE | Errno::CONNRESET) => return Err(Ended::Vm),
                    Err(error) => return Err(error.into()),
                }
            }
            self.to_vm.start += LENGTH + length;
        }
        Ok(())
    }
}

/// How much of what was sent the other end has not read yet, in bytes of the kernel's; 0 if that is not known.
fn unread(stream: &OwnedFd) -> libc::c_int {
    let mut bytes = 0;
    // SAFETY: SIOCOUTQ writes an int (unix(7) has it as TIOCOUTQ, the same number).
    unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    bytes
}

/// Sends one frame.
fn to_guest(vm: &FrameSocket, frame: &[u8]) -> rustix::io::Result<()> {
    let parts = [IoSlice::new(&CHECKED), IoSlice::new(frame)];
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut nothing = SendAncillaryBuffer::default();
    sendmsg(vm, &parts, &mut nothing, flags).map(drop)
}

/// What carries frames between the interface of a VM and its passt. Dropping it ends both sides of that.
pub struct Relay {
    name: String,
    link: Link<HostRoutes>,
}

impl Relay {
    pub(super) fn new(name: String, link: Link<HostRoutes>) -> Self {
        Self { name, link }
    }

    /// All that it has open.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        let Link {
            vm, passt, filter, ..
        } = &self.link;
        [vm.as_fd(), passt.as_fd(), filter.routes().as_fd()]
    }
}

/// Carries the frames of all these until `stop` can be read, or nobody is left who writes to it. One whose passt ends is
/// dropped, and that is logged.
///
/// # Errors
/// When the kernel tells of no events any more.
pub fn carry(mut relays: Vec<Relay>, stop: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        let events = relays.iter().flat_map(|relay| relay.link.slots());
        let mut slots: Vec<Slot<'_>> = [Slot::readable(stop)].into_iter().chain(events).collect();
        let waits = relays.iter().any(|relay| !relay.link.pending.is_empty());
        let until = match waits {
            true => wait::Until::after(LOOK),
            false => wait::Until::Forever,
        };
        wait::any_of(&mut slots, until)?;
        if slots[0].is_ready() {
            return Ok(());
        }
        relays.retain_mut(|relay| match relay.link.turn() {
            Ok(()) => true,
            Err(Ended::Vm) => false,
            Err(why) => {
                log::error!("the network of {} has ended: {why}", relay.name);
                false
            }
        });
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
