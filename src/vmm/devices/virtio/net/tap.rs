//! A queue of a tap as a port.

use super::port::{Offloads, Port};
use crate::devices::virtio::Iovecs;
use kvmlet_sys::tap::TapQueue;
use std::io;

impl Port for TapQueue {
    fn recv(&self, into: &Iovecs) -> io::Result<usize> {
        into.read_from(self).map_err(named)
    }

    fn is_the_kernels(&self) -> bool {
        true
    }

    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        let mut bits = 0;
        for (wanted, bit) in [
            (offloads.checksum, libc::TUN_F_CSUM),
            (offloads.tso4, libc::TUN_F_TSO4),
            (offloads.tso6, libc::TUN_F_TSO6),
            (offloads.ecn, libc::TUN_F_TSO_ECN),
        ] {
            bits |= if wanted { bit } else { 0 };
        }
        TapQueue::set_offloads(self, bits).map_err(named)
    }

    fn attach(&self, attached: bool) -> io::Result<()> {
        TapQueue::attach(self, attached).map_err(named)
    }
}

/// Says what it means that a queue has no tap (`tun_chr_read_iter` in Linux drivers/net/tun.c).
fn named(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EBADFD) => io::Error::other("its tap was removed from the host"),
        _ => error,
    }
}
