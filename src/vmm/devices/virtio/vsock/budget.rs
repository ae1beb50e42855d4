//! Room for what guests have sent and the host's programs have not taken yet.
//!
//! A connection's buffer is a promise to the guest, which can use all of it at once; so what is promised to all of them
//! together is bounded, and each finds something. What is promised is taken when it is needed.

/// Connections at a time, of one guest.
pub const MOST_CONNECTIONS: usize = 1023;
/// What each connection has at least, in bytes: a page of data, and another while that is passed on.
const LEAST: u32 = 8 << 10;
/// What a connection has at most: as much as Linux gives its own.
const MOST: u32 = 256 << 10;
/// What connections have beyond the least, all together.
const BONUS: u32 = 8 << 20;

/// What has not been promised yet.
#[derive(Debug)]
pub(super) struct Budget {
    bonus: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bonus: BONUS }
    }
}

impl Budget {
    /// A buffer for one more connection, in bytes: the fuller it gets, the smaller.
    pub fn promise(&mut self) -> u32 {
        let bonus = (self.bonus / 16).min(MOST - LEAST);
        self.bonus -= bonus;
        LEAST + bonus
    }

    /// A connection that had such a buffer is gone.
    pub fn take_back(&mut self, buffer: u32) {
        self.bonus += buffer - LEAST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_promises_together_are_bounded_and_none_is_empty() {
        let mut budget = Budget::default();
        let promises: Vec<u32> = (0..MOST_CONNECTIONS).map(|_| budget.promise()).collect();
        assert_eq!(promises[..16], [MOST; 16]);
        assert!(promises.is_sorted_by(|a, b| a >= b));
        assert!(promises.iter().all(|buffer| *buffer >= LEAST));
        let sum: u32 = promises.iter().sum();
        assert!(sum <= 16 << 20, "{sum}");
        promises
            .into_iter()
            .for_each(|buffer| budget.take_back(buffer));
        assert_eq!(budget.promise(), MOST);
    }
}
