//! Frames for a metadata service: who answers them is another process, to whom they go instead of the network.

use super::header::BYTES;
use super::port::{Offloads, Port};
use crate::config::Metadata;
use crate::devices::virtio::Iovecs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Two addresses and a type.
const ETHERNET: usize = 14;
/// As much of a frame as says whom it is for: a question of ARP, which is longer than IPv4's addresses are far in.
const HEAD: usize = ETHERNET + 28;

/// Is a frame that begins so for the service at this address: a question who has it (RFC 826), or TCP over IPv4?
pub fn concerns(frame: &[u8], address: Ipv4Addr) -> bool {
    /// Ethernet, IPv4, their addresses' lengths, a question.
    const QUESTION: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    const TCP: u8 = 6;
    let Some((ethernet, packet)) = frame.split_first_chunk::<ETHERNET>() else {
        return false;
    };
    let address = &address.octets()[..];
    match ethernet[12..] {
        [8, 6] => packet.starts_with(&QUESTION) && packet.get(24..28) == Some(address),
        [8, 0] => {
            let is_tcp =
                packet.first().is_some_and(|first| first >> 4 == 4) && packet.get(9) == Some(&TCP);
            is_tcp && packet.get(16..20) == Some(address)
        }
        _ => false,
    }
}

/// A port, of whose frames those for one address go to a socket, and those from there to the guest.
pub struct WithMetadata {
    port: Arc<dyn Port>,
    service: Metadata,
    /// Nobody has its other end any more.
    is_gone: AtomicBool,
    /// Whose frame the guest gets next, if both have one.
    is_port_next: AtomicBool,
}

impl WithMetadata {
    /// Has what the guest sends to the service by this port go there.
    pub fn new(port: Arc<dyn Port>, service: Metadata) -> Self {
        Self {
            port,
            service,
            is_gone: false.into(),
            is_port_next: false.into(),
        }
    }

    /// A frame of the service's.
    fn answer(&self, into: &Iovecs) -> io::Result<usize> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match into.read_from(&self.service.socket) {
            Ok(bytes @ 1..) => return Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            // There are no empty frames: its other end is closed.
            Ok(_) | Err(_) => {}
        }
        // The guest's network goes on without it.
        log::warn!("the metadata service has ended");
        self.is_gone.store(true, Ordering::Relaxed);
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl AsFd for WithMetadata {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}

impl Port for WithMetadata {
    fn recv(&self, into: &Iovecs) -> io::Result<usize> {
        let is_port_first = self.is_port_next.fetch_not(Ordering::Relaxed);
        let none = |result: &io::Result<usize>| {
            let error = result.as_ref().err();
            error.is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        let receive = |from_port| match from_port {
            true => self.port.recv(into),
            false => self.answer(into),
        };
        let received = receive(is_port_first);
        match none(&received) {
            true => receive(!is_port_first),
            false => received,
        }
    }

    fn send(&self, frame: &Iovecs) -> io::Result<()> {
        let mut head = [0; BYTES + HEAD];
        let bytes = frame.copy_beginning(&mut head);
        // A guest may change it until it is sent: then it changes which of two places gets it, both of which take anything.
        let head = head.get(BYTES..bytes).unwrap_or_default();
        if !concerns(head, self.service.address) {
            return self.port.send(frame);
        }
        let sent = frame.write_to(&self.service.socket).map(drop);
        sent.map_err(|error| match error.kind() {
            // It is sent again, as TCP does, or asked again.
            io::ErrorKind::WouldBlock => io::Error::other("the metadata service is busy"),
            _ => error,
        })
    }

    fn beside(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_gone.load(Ordering::Relaxed)).then(|| self.service.socket.as_fd())
    }

    fn takes_offloads(&self) -> bool {
        self.port.takes_offloads()
    }

    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        self.port.set_offloads(offloads)
    }

    fn attach(&self, attached: bool) -> io::Result<()> {
        self.port.attach(attached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

    fn arp() -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0]);
        frame.extend(ADDRESS.octets());
        frame
    }

    fn tcp() -> Vec<u8> {
        let mut frame = vec![6, 1, 0x23, 0x45, 0x67, 1, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2]);
        frame.extend(ADDRESS.octets());
        frame.extend([0; 20]);
        frame
    }

    #[test]
    fn questions_and_tcp_for_the_address_are_the_service_s() {
        assert!(concerns(&arp(), ADDRESS) && concerns(&tcp(), ADDRESS));
        let other = Ipv4Addr::new(169, 254, 169, 253);
        assert!(!concerns(&arp(), other) && !concerns(&tcp(), other));
        // Each of these bytes matters: type, the question, IP's version and protocol, the address.
        let matters = [
            (
                arp(),
                vec![12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 38, 39, 40, 41],
            ),
            (tcp(), vec![12, 13, 14, 23, 30, 31, 32, 33]),
        ];
        for (frame, places) in matters {
            for place in 0..frame.len() {
                let mut frame = frame.clone();
                frame[place] ^= 0xf0;
                assert_eq!(
                    concerns(&frame, ADDRESS),
                    !places.contains(&place),
                    "{place}"
                );
            }
        }
    }

    #[test]
    fn what_is_cut_short_is_not() {
        for (frame, whole) in [(arp(), 42), (tcp(), 34)] {
            for length in 0..frame.len() {
                assert_eq!(
                    concerns(&frame[..length], ADDRESS),
                    length >= whole,
                    "{length}"
                );
            }
        }
    }
}
