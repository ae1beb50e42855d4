//! What a target knows of its device.

use kvmlet_spec::{Rate, RateLimit};
use std::time::{Duration, Instant};

/// A buffer of a request.
pub struct Part {
    pub bytes: u32,
    /// What is in it at first, from its start on.
    pub contents: Vec<u8>,
    pub writable: bool,
}

impl Part {
    pub fn readable(contents: Vec<u8>) -> Self {
        Self {
            bytes: contents.len() as u32,
            contents,
            writable: false,
        }
    }

    pub fn writable(bytes: u32) -> Self {
        Self {
            bytes,
            contents: Vec::new(),
            writable: true,
        }
    }
}

/// A device with what the host has of it.
pub trait Subject {
    /// A request that a driver may make, as the fuzzer chooses it.
    fn request(&self, queue: u32, choice: [u8; 8]) -> Vec<Part>;

    /// Whether each request in that queue is answered sooner or later.
    fn answers(&self, queue: u32) -> bool;

    /// Such a request for a queue, made of the fuzzer's choice, that is answered at once if nothing limits the device;
    /// none if there is no such.
    fn at_once(&mut self, queue: u32, choice: [u8; 8]) -> Option<[u8; 8]> {
        self.answers(queue).then_some(choice)
    }

    /// Does what a host does meanwhile.
    fn act(&mut self, _choice: [u8; 8]) {}

    /// Lifts all limits; false if it has one that stays and is too low to wait for.
    fn lift_limits(&mut self) -> bool;

    /// Looks at what comes out at the other end.
    fn look(&mut self) {}

    /// Whether the device changes nothing of guest memory but what requests give it to write.
    fn keeps_to_buffers(&self) -> bool {
        true
    }

    /// What buffers begin at a multiple of, where the driver keeps to the rules.
    fn unit(&self) -> u64 {
        1
    }

    /// The device has been reset for the last time.
    fn check(&mut self) {}
}

/// A limit of the fuzzer's choice, and what may have passed it.
pub struct Limit {
    pub limit: RateLimit,
    since: Instant,
    /// It was the same all the time.
    pub constant: bool,
}

impl Limit {
    pub fn new(choice: u8) -> Self {
        // Amount in a second, at once, and once only.
        let rate = |choice: u8, unit: u64| {
            let (amount, burst, once) = match choice {
                0..8 => return None,
                8 => (1, 1, 0),
                9 => (1, 4 * unit, 0),
                10 => (1, 1, 16 * unit),
                11 => (100 * unit, unit, 0),
                12 => (100_000 * unit, 1, 0),
                13 => (100_000 * unit, 16 * unit, 0),
                14 => (1_000_000 * unit, 1, 3),
                _ => (1_000_000 * unit, 1024 * unit, unit),
            };
            let rate = Rate::per_second(amount).ok()?;
            Some(rate.burst(burst).once(once))
        };
        let limit = RateLimit {
            operations: rate(choice & 15, 1),
            bandwidth: rate(choice >> 4, 4096),
        };
        Self {
            limit,
            since: Instant::now(),
            constant: true,
        }
    }

    /// Takes so long to let a queue pass that nobody waits for it.
    pub fn is_low(&self) -> bool {
        let low =
            |rate: Option<Rate>, enough| rate.is_some_and(|rate| rate.parts().0.get() < enough);
        low(self.limit.operations, 10_000) || low(self.limit.bandwidth, 100 << 20)
    }

    /// No more passes than the limit allows, and the last request. `largest` is the most that one can cost, in bytes.
    pub fn check(&self, operations: u64, bytes: u64, largest: u64) {
        if !self.constant {
            return;
        }
        let passed = self.since.elapsed() + Duration::from_millis(1);
        for (rate, amount, last) in [
            (self.limit.operations, operations, 1),
            (self.limit.bandwidth, bytes, largest),
        ] {
            let Some(rate) = rate else { continue };
            let (per_second, burst, once) = rate.parts();
            let most =
                (burst.get() + once + last) as f64 + per_second.get() as f64 * passed.as_secs_f64();
            assert!(
                amount as f64 <= most,
                "{amount} where {most} may pass: {rate:?}"
            );
        }
    }
}
