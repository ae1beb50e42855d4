//! The way to nf_tables: changes, lists, and news of what others change.

use super::message::{
    Attribute, Batch, FAMILY_BYTES, IPV4, Kind, Received, describe, message, text,
};
use super::quiet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NetlinkBuffer};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, send,
    socket_with,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The kernel answers at once; this is for a kernel that does not.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest datagram of netlink, in bytes.
const DATAGRAM_BYTES: usize = 64 << 10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// RTM_NEWNETCONF, a setting of IPv4's that has changed, and its group (linux/rtnetlink.h).
const RTM_NEWNETCONF: u16 = 80;
const RTNLGRP_IPV4_NETCONF: u32 = 24;
/// linux/netfilter/nfnetlink.h
const NFNLGRP_NFTABLES: u32 = 7;

/// What the kernel says of a change that it refuses.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refuses {what}: {cause}")]
struct Refusal {
    what: String,
    cause: io::Error,
}

/// A socket for changes and questions.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// # Errors
    /// When the kernel has no nfnetlink.
    pub fn open() -> io::Result<Self> {
        let socket = open(Some(netlink::NETFILTER), SocketFlags::empty())?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        let sequence = 1;
        Ok(Self { socket, sequence })
    }

    /// Makes changes, all or none.
    ///
    /// # Errors
    /// What the kernel says of the first that it refuses, which is named; without CAP_NET_ADMIN or nf_tables, of them
    /// all.
    pub fn change(&mut self, fill: impl FnOnce(&mut Batch)) -> io::Result<()> {
        let mut batch = Batch::new(self.sequence);
        fill(&mut batch);
        self.make(batch).map_err(|(_, error)| error)
    }

    /// Finds out whether changes could be made. Nothing is changed, and nobody is told.
    ///
    /// # Errors
    /// As [`change`](Self::change).
    pub fn rehearse(&mut self, fill: impl FnOnce(&mut Batch)) -> io::Result<()> {
        let mut batch = Batch::new(self.sequence);
        fill(&mut batch);
        // What is not there cannot be deleted, and what belongs together is not made then.
        let nothing = [text(1, "kvmlet-nothing")];
        let last = batch.push(IPV4, Kind::DelTable, 0, &nothing);
        match self.make(batch) {
            Err((at, error)) if at != last => Err(error),
            _ => Ok(()),
        }
    }

    /// Sends a batch; an error comes with the number of the change that is refused.
    fn make(&mut self, batch: Batch) -> Result<(), (u32, io::Error)> {
        let first = self.sequence;
        let Some((bytes, last, next)) = batch.finish() else {
            return Ok(());
        };
        self.sequence = next;
        let lost = |error: io::Error| (first, error);
        send(&self.socket, &bytes, SendFlags::empty()).map_err(|error| lost(error.into()))?;
        let mut refused = None;
        loop {
            let mut done = false;
            self.receive(|message_type, sequence, payload| {
                let Some(code) = error_of(message_type, payload).filter(|_| sequence >= first)
                else {
                    return;
                };
                if code != 0 {
                    refused.get_or_insert((sequence, code));
                }
                // What refuses the whole batch answers its beginning, and nothing else.
                done |= sequence >= last || code == libc::EPERM || code == libc::EOPNOTSUPP;
            })
            .map_err(lost)?;
            if done {
                break;
            }
        }
        let Some((sequence, code)) = refused else {
            return Ok(());
        };
        let cause = io::Error::from_raw_os_error(code);
        let error = match describe(&bytes, sequence) {
            Some(what) => io::Error::new(cause.kind(), Refusal { what, cause }),
            None => cause,
        };
        Err((sequence, error))
    }

    /// Asks for all things of a kind, as far as the attributes narrow that down, in one family or all (0).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn list(
        &mut self,
        kind: Kind,
        family: u8,
        attributes: &[Attribute],
        mut each: impl FnMut(&Received<'_>),
    ) -> io::Result<()> {
        let sequence = self.send(kind.message_type(), NLM_F_DUMP, family, attributes)?;
        self.answers(sequence, |message_type, payload| {
            Received::parse(message_type, payload)
                .iter()
                .for_each(&mut each);
        })
    }

    /// As [`list`](Self::list), of another subsystem: the attributes of each thing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn list_of(
        &mut self,
        message_type: u16,
        family: u8,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let sequence = self.send(message_type, NLM_F_DUMP, family, &[])?;
        self.answers(sequence, |_, payload| {
            payload.get(FAMILY_BYTES..).into_iter().for_each(&mut each);
        })
    }

    /// Has another subsystem do one thing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ask(
        &mut self,
        message_type: u16,
        family: u8,
        attributes: &[Attribute],
    ) -> io::Result<()> {
        let sequence = self.send(message_type, NLM_F_ACK, family, attributes)?;
        self.answers(sequence, |_, _| ())
    }

    fn send(
        &mut self,
        message_type: u16,
        flags: u16,
        family: u8,
        attributes: &[Attribute],
    ) -> io::Result<u32> {
        let sequence = self.sequence;
        self.sequence += 1;
        let family: [u8; FAMILY_BYTES] = [family, 0, 0, 0];
        let question = message(message_type, flags, sequence, family, attributes);
        send(&self.socket, &question, SendFlags::empty())?;
        Ok(sequence)
    }

    /// What comes in answer, until it ends.
    fn answers(&self, sequence: u32, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut end = None;
        while end.is_none() {
            self.receive(|message_type, answered, payload| {
                if answered != sequence {
                    return;
                }
                match error_of(message_type, payload) {
                    Some(code) => end = Some(code),
                    None if message_type == NLMSG_DONE => end = Some(0),
                    None => each(message_type, payload),
                }
            })?;
        }
        match end {
            None | Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(code)),
        }
    }

    fn receive(&self, each: impl FnMut(u16, u32, &[u8])) -> io::Result<()> {
        receive(&self.socket, RecvFlags::empty(), each)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The positive error number of an error or acknowledgement: 0 is success.
fn error_of(message_type: u16, payload: &[u8]) -> Option<i32> {
    let code = payload.get(..4)?.try_into().ok()?;
    (message_type == NLMSG_ERROR).then(|| i32::from_ne_bytes(code).saturating_neg())
}

fn open(protocol: Option<rustix::net::Protocol>, flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        protocol,
    )?)
}

/// Takes one datagram apart: type, sequence number and payload of each message.
fn receive(
    socket: &OwnedFd,
    flags: RecvFlags,
    mut each: impl FnMut(u16, u32, &[u8]),
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(DATAGRAM_BYTES);
    while let Err(error) = recv(socket, spare_capacity(&mut buffer), flags) {
        if error != Errno::INTR {
            return Err(error.into());
        }
    }
    let mut rest = &buffer[..];
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        let length = message.length() as usize;
        each(
            message.message_type(),
            message.sequence_number(),
            message.payload(),
        );
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

/// News of what anybody changes in nf_tables, and of forwarding that is switched for all interfaces: not of what comes
/// with each guest, for which the kernel would wake all who have this.
#[derive(Debug)]
pub struct News {
    tables: OwnedFd,
    settings: OwnedFd,
}

/// One of them.
pub enum Change<'a> {
    /// Of a table, or of something in one.
    Table(Received<'a>),
    /// Some setting for all interfaces.
    Setting,
    /// More came than could be kept: some are lost.
    Lost,
}

impl News {
    /// # Errors
    /// When the kernel tells none.
    pub fn subscribe() -> io::Result<Self> {
        let group = |group: u32| netlink::SocketAddrNetlink::new(0, 1 << (group - 1));
        let tables = open(Some(netlink::NETFILTER), SocketFlags::NONBLOCK)?;
        // Filters first: what came before them would wait to be read.
        quiet::but_for_losses(&tables);
        bind(&tables, &group(NFNLGRP_NFTABLES))?;
        let settings = open(None, SocketFlags::NONBLOCK)?;
        quiet::but_for_all(&settings);
        bind(&settings, &group(RTNLGRP_IPV4_NETCONF))?;
        Ok(Self { tables, settings })
    }

    /// Readable when there are some.
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.tables.as_fd(), self.settings.as_fd()]
    }

    /// Those that have come.
    pub fn read(&self, mut each: impl FnMut(Change<'_>)) {
        for socket in [&self.tables, &self.settings] {
            loop {
                let received = receive(socket, RecvFlags::DONTWAIT, |message_type, _, payload| {
                    match Received::parse(message_type, payload) {
                        Some(change) => each(Change::Table(change)),
                        None if message_type == RTM_NEWNETCONF => each(Change::Setting),
                        None => {}
                    }
                });
                match received {
                    Ok(()) => {}
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => each(Change::Lost),
                    Err(_) => break,
                }
            }
        }
    }
}
