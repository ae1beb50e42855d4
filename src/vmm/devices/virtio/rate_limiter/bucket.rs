//! One token bucket.

use crate::config::Rate;
use std::num::NonZero;
use std::time::Duration;

/// Balances count in billionths of a token: a rate of `r` per second adds exactly `r` of them per nanosecond.
const TOKEN: i128 = 1_000_000_000;

/// A bucket that tokens flow into at a rate, up to a burst.
#[derive(Clone, Copy, Debug)]
pub(in crate::devices) struct Bucket {
    per_second: u64,
    burst: i128,
    /// Negative is debt.
    balance: i128,
    /// Tokens that are there one time only, spent first.
    once: u64,
}

/// How full a bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Billionths of a token; negative is debt.
    pub balance: i128,
    /// Tokens that are there one time only.
    pub once: u64,
}

impl Bucket {
    /// How full it is.
    pub fn level(&self) -> Level {
        let (balance, once) = (self.balance, self.once);
        Level { balance, once }
    }

    /// Makes it as full as another was, but no fuller than it can be, and with no debt that it could not have: a second's
    /// worth and its burst.
    pub fn set_level(&mut self, level: Level) {
        let most_debt = self.burst + i128::from(self.per_second) * TOKEN;
        self.balance = level.balance.clamp(-most_debt, self.burst);
        self.once = self.once.min(level.once);
    }

    /// A bucket with its burst in it.
    pub fn full(rate: Rate) -> Self {
        let (per_second, burst, once) = rate.parts();
        Self {
            once,
            ..Self::new(per_second, burst)
        }
    }

    /// A bucket that holds `burst` tokens, all of them now.
    pub fn new(per_second: NonZero<u64>, burst: NonZero<u64>) -> Self {
        let burst = i128::from(burst.get()) * TOKEN;
        Self {
            per_second: per_second.get(),
            burst,
            balance: burst,
            once: 0,
        }
    }

    /// Adds what has come in that time.
    pub fn refill(&mut self, elapsed: Duration) {
        let room = (self.burst - self.balance).unsigned_abs();
        let added = elapsed
            .as_nanos()
            .saturating_mul(u128::from(self.per_second));
        // No more than the room, which is positive and far below i128::MAX.
        self.balance += added.min(room) as i128;
    }

    /// How long until something of this cost may pass; zero is now.
    pub fn wait(&self, cost: u64) -> Duration {
        let missing = TOKEN - self.balance;
        if cost <= self.once || missing <= 0 {
            return Duration::ZERO;
        }
        let nanos = missing.unsigned_abs().div_ceil(self.per_second.into());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Takes what something has cost, on credit if need be.
    pub fn spend(&mut self, cost: u64) {
        let free = cost.min(self.once);
        self.once -= free;
        // Only who has a token spends, so no debt exceeds one cost, which is far above i128::MIN.
        self.balance -= i128::from(cost - free) * TOKEN;
    }
}

/// What a user has changed, applied to a bucket in use: its level stays, within the new burst.
pub(super) fn change(bucket: Option<Bucket>, rate: Option<Rate>) -> Option<Bucket> {
    let mut changed = Bucket::full(rate?);
    if let Some(old) = bucket {
        changed.balance = old.balance.min(changed.burst);
    }
    Some(changed)
}
