//! A queue that somebody else serves for a while, who has it from here and gives it back.

use super::Virtqueue;
use crate::devices::virtio::Interrupt;
use kvmlet_sys::vhost::Ring;

impl Virtqueue {
    /// Where it is in this process, and how far it has come.
    pub(in crate::devices::virtio) fn ring(&self) -> Ring {
        let [descriptors, driver, device] = self.parts.rings.places();
        Ring {
            size: self.size(),
            next_avail: self.next_avail,
            descriptors,
            driver,
            device,
        }
    }

    /// Somebody else has served it up to that request, and has answered all of them.
    pub(in crate::devices::virtio) fn served_up_to(&mut self, next_avail: u16) {
        (self.next_avail, self.known) = (next_avail, next_avail);
        let used = self.parts.rings.device_index();
        (self.next_used, self.published, self.signalled) = (used, used, used);
        self.muted = false;
    }

    /// How its driver is told.
    pub(in crate::devices::virtio) fn interrupt(&self) -> &Interrupt {
        &self.parts.interrupt
    }
}
