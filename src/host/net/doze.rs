//! A network that is held while there is nobody to read its guest's frames: those that concern the guest wait in the tap's
//! queue, and whoever holds it is told that there are some.

use super::{Carrier, Error, Network, link};
use kvmlet_sys::wait::Slot;
use std::os::fd::AsFd;

impl Network {
    /// Has frames wait for the guest, which does not answer (true), or go to it again.
    ///
    /// While it does not, what is for nobody, or for all, is not kept: it would be taken for somebody who wants the guest. And
    /// the kernel knows the guest's hardware address without asking for it, for it would keep packets back until that is
    /// answered.
    ///
    /// # Errors
    /// When there is no tap, or the kernel cannot.
    pub fn doze(&self, dozes: bool) -> Result<(), Error> {
        let (Carrier::Tap(tap), Some(guest)) = (&self.carrier, &self.interface.guest) else {
            return Ok(());
        };
        let failed = |what| {
            move |source| Error::Link {
                name: tap.name().into(),
                what,
                source,
            }
        };
        let (address, mac) = (guest.address, self.interface.mac);
        link::Socket::open()
            .and_then(|link| link.set_neighbour(tap.name(), (address, mac), dozes))
            .map_err(failed("set the guest's hardware address"))?;
        let only_for = dozes.then(|| mac.octets());
        tap.queues()
            .first()
            .map_or(Ok(()), |queue| queue.take_only_for(only_for))
            .map_err(failed("set which frames are kept"))
    }

    /// That there are frames for the guest. They stay.
    pub fn frames(&self) -> impl Iterator<Item = Slot<'_>> {
        let queues = self.queues().iter();
        queues.map(|queue| Slot::readable(queue.as_fd()))
    }

    /// As a process has it that was forked from the one which holds it, to have a VM go on with its queues: all that is set up
    /// stays the other's.
    pub fn lend(mut self) -> Self {
        if let Some(made) = self.made.take() {
            self.lent = made.published;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::net::isolation::isolated;
    use crate::net::tests::{net, set_up};
    use kvmlet_sys::wait::{self, Until};
    use std::net::{Ipv4Addr, UdpSocket};
    use std::time::Duration;

    /// What the kernel knows of the only neighbour.
    fn flags() -> String {
        let text = std::fs::read_to_string("/proc/thread-self/net/arp").unwrap();
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words[0], "10.107.0.2");
        words[2].into()
    }

    #[test]
    fn frames_for_a_guest_wait_and_noise_does_not() {
        let test = "net::doze::tests::frames_for_a_guest_wait_and_noise_does_not";
        isolated(test, || {
            let runtime = tempfile::tempdir().unwrap();
            let network = set_up(&net(&[]), runtime.path()).unwrap();
            let comes = |until| {
                let mut slots: Vec<_> = network.frames().collect();
                wait::any_of(&mut slots, until).unwrap();
                slots.iter().any(wait::Slot::is_ready)
            };
            network.doze(true).unwrap();
            // Complete and permanent.
            assert_eq!(flags(), "0x6");
            let socket = UdpSocket::bind("10.107.0.1:0").unwrap();
            socket.set_broadcast(true).unwrap();
            let guest = Ipv4Addr::new(10, 107, 0, 2);
            for noise in [
                Ipv4Addr::BROADCAST,
                Ipv4Addr::new(10, 107, 0, 3),
                Ipv4Addr::new(224, 0, 0, 251),
            ] {
                let _ = socket.send_to(b"noise", (noise, 5353));
            }
            assert!(!comes(Until::after(Duration::from_millis(50))));
            socket.send_to(b"it", (guest, 80)).unwrap();
            assert!(comes(Until::after(Duration::from_secs(20))));
            let read = |buffer: &mut [u8]| rustix::io::read(&network.queues()[0], buffer).unwrap();
            let mut buffer = [0; 2048];
            let frame = read(&mut buffer);
            assert_eq!(&buffer[frame - 2..frame], b"it");
            // Noise comes again when somebody is there to hear it.
            network.doze(false).unwrap();
            socket.send_to(b"noise", ("10.107.0.3", 5353)).unwrap();
            assert!(comes(Until::after(Duration::from_secs(20))));
            assert_ne!(flags(), "0x6");
        });
    }
}
