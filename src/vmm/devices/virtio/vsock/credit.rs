//! How much either side may send (virtio 1.2 §5.10.6.3). Counters run freely, and wrap.

/// What may be sent to the guest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit {
    /// Bytes sent so far (`tx_cnt`).
    sent: u32,
    /// The guest's buffer (`peer_buf_alloc`).
    buffer: u32,
    /// Bytes that have left it (`peer_fwd_cnt`).
    forwarded: u32,
}

impl Credit {
    /// Takes what a packet from the guest says.
    pub fn update(&mut self, buffer: u32, forwarded: u32) {
        self.buffer = buffer;
        // Two threads of a guest may send in another order than they have counted in (Linux's do); and more than was sent
        // cannot have left.
        let flying = self.sent.wrapping_sub(self.forwarded);
        if self.sent.wrapping_sub(forwarded) <= flying {
            self.forwarded = forwarded;
        }
    }

    /// How many bytes the guest has room for.
    pub fn available(&self) -> usize {
        let flying = self.sent.wrapping_sub(self.forwarded);
        self.buffer.saturating_sub(flying) as usize
    }

    /// This many bytes were sent, which were available.
    pub fn spend(&mut self, bytes: usize) {
        self.sent = self.sent.wrapping_add(bytes as u32);
    }
}

/// What the guest may send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Our buffer (`buf_alloc`).
    buffer: u32,
    /// Bytes that have come.
    received: u32,
    /// Bytes that have left the buffer (`fwd_cnt`).
    forwarded: u32,
    /// What the guest was told last.
    told: u32,
}

impl Window {
    pub fn new(buffer: u32) -> Self {
        Self {
            buffer,
            received: 0,
            forwarded: 0,
            told: 0,
        }
    }

    /// Size of the buffer, in bytes.
    pub fn buffer(&self) -> u32 {
        self.buffer
    }

    /// This many bytes come; false if the guest was not allowed to send as many.
    pub fn admit(&mut self, bytes: u32) -> bool {
        let held = self.received.wrapping_sub(self.forwarded);
        let admitted = bytes <= self.buffer - held;
        if admitted {
            self.received = self.received.wrapping_add(bytes);
        }
        admitted
    }

    /// This many of them have left the buffer.
    pub fn forward(&mut self, bytes: usize) {
        self.forwarded = self.forwarded.wrapping_add(bytes as u32);
    }

    /// The guest may be waiting for what it does not know of: half of the buffer.
    pub fn is_worth_telling(&self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= self.buffer.div_ceil(2)
    }

    /// What a packet to the guest says: buffer and bytes forwarded.
    pub fn tell(&mut self) -> (u32, u32) {
        self.told = self.forwarded;
        (self.buffer, self.forwarded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_wrap() {
        let start = u32::MAX - 99;
        let mut credit = Credit {
            sent: start,
            buffer: 0,
            forwarded: start,
        };
        let mut window = Window {
            received: start,
            forwarded: start,
            told: start,
            ..Window::new(1000)
        };
        credit.update(1000, start);
        for round in 1..10u32 {
            assert_eq!(credit.available(), 1000);
            credit.spend(400);
            credit.spend(600);
            assert_eq!(credit.available(), 0);
            assert!(window.admit(1000) && !window.admit(1));
            window.forward(499);
            assert!(!window.is_worth_telling());
            window.forward(501);
            assert!(window.is_worth_telling());
            let (buffer, forwarded) = window.tell();
            assert_eq!(forwarded, start.wrapping_add(1000 * round));
            credit.update(buffer, forwarded);
        }
    }

    #[test]
    fn what_a_guest_says_of_credit_can_be_old_or_wrong() {
        let mut credit = Credit::default();
        credit.update(1000, 0);
        credit.spend(800);
        credit.update(1000, 500);
        assert_eq!(credit.available(), 700);
        // Older than what is known, and more than was ever sent.
        for forwarded in [300, 801, u32::MAX, 1 << 31] {
            credit.update(1000, forwarded);
            assert_eq!(credit.available(), 700);
        }
        // A buffer that has become smaller than what is in it.
        credit.update(100, 500);
        assert_eq!(credit.available(), 0);
        credit.update(u32::MAX, 800);
        assert_eq!(credit.available(), u32::MAX as usize);
    }

    #[test]
    fn nothing_is_admitted_beyond_the_buffer() {
        let mut window = Window::new(10);
        assert!(window.admit(0) && window.admit(4));
        assert!(!window.admit(7) && !window.admit(u32::MAX));
        assert!(window.admit(6));
        window.forward(3);
        assert!(!window.admit(4) && window.admit(3));
    }
}
