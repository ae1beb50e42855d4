//! A queue of a tap as a port.

use super::port::{Offloads, Port};
use kvmlet_sys::tap::TapQueue;
use std::io;

impl Port for TapQueue {
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
        TapQueue::set_offloads(self, bits)
    }

    fn attach(&self, attached: bool) -> io::Result<()> {
        TapQueue::attach(self, attached)
    }
}
