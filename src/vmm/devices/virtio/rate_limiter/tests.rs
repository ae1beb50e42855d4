//! Rate limits by a clock that only the tests move.

use super::*;
use crate::config::Rate;
use kvmlet_sys::wait::{self, Slot, Until};
use proptest::prelude::*;
use std::sync::atomic::AtomicU64;

/// A clock that stands still until it is moved.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap();
        self.0.fetch_add(nanos, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn rate(per_second: u64, burst: u64) -> Option<Rate> {
    Some(Rate::per_second(per_second).unwrap().burst(burst))
}

fn limiter(limit: RateLimit) -> (RateLimiter, Gate, TestClock) {
    let clock = TestClock::default();
    let limiter = RateLimiter::with_clock(limit, clock.clone());
    let gate = limiter.gate().unwrap();
    (limiter, gate, clock)
}

fn operations(per_second: u64, burst: u64) -> RateLimit {
    RateLimit {
        operations: rate(per_second, burst),
        ..RateLimit::NONE
    }
}

fn bandwidth(per_second: u64, burst: u64) -> RateLimit {
    RateLimit {
        bandwidth: rate(per_second, burst),
        ..RateLimit::NONE
    }
}

/// Is the timer readable, at once or within ten seconds?
fn fires(gate: &Gate, wait: bool) -> bool {
    let time = Duration::from_secs(if wait { 10 } else { 0 });
    wait::one(Slot::readable(gate.timer()), Until::after(time)).unwrap()
}

#[test]
fn without_a_limit_all_passes() {
    let (limiter, mut gate, _) = limiter(RateLimit::NONE);
    assert_eq!(gate.take(u64::MAX, u64::MAX), Take::Ready);
    assert_eq!(limiter.throttled(), Throttled::default());
}

#[test]
fn a_burst_passes_and_then_the_rate_holds() {
    let (_, mut gate, clock) = limiter(operations(10, 3));
    for _ in 0..3 {
        assert_eq!(gate.take(1, 1 << 40), Take::Ready);
    }
    assert_eq!(gate.take(1, 0), Take::Throttled(SECOND / 10));
    clock.advance(SECOND / 10 - Duration::from_nanos(1));
    assert_eq!(gate.take(1, 0), Take::Throttled(Duration::from_nanos(1)));
    clock.advance(Duration::from_nanos(1));
    assert_eq!(gate.take(1, 0), Take::Ready);
    clock.advance(1000 * SECOND);
    let passed = (0..10).filter(|_| gate.take(1, 0) == Take::Ready).count();
    assert_eq!(passed, 3, "a pause must not save up more than the burst");
}

#[test]
fn a_request_beyond_the_burst_passes_on_credit() {
    let (_, mut gate, clock) = limiter(bandwidth(1000, 100));
    assert_eq!(gate.take(1, 10_100), Take::Ready);
    let Take::Throttled(wait) = gate.take(1, 1) else {
        panic!("a debt was forgotten")
    };
    assert_eq!(wait, 10 * SECOND + SECOND / 1000);
    clock.advance(wait);
    assert_eq!(gate.take(1, 1), Take::Ready);
}

#[test]
fn both_limits_hold_and_a_refusal_spends_nothing() {
    let limit = RateLimit {
        operations: rate(1, 2),
        bandwidth: rate(100, 100),
    };
    let (_, mut gate, clock) = limiter(limit);
    assert_eq!(gate.take(1, 100), Take::Ready);
    assert!(matches!(gate.take(1, 100), Take::Throttled(_)));
    assert!(matches!(gate.take(1, 100), Take::Throttled(_)));
    // The second operation is still there: what has no bytes owes no bandwidth.
    assert_eq!(gate.take(1, 0), Take::Ready);
    clock.advance(SECOND / 2);
    assert_eq!(gate.take(1, 1), Take::Throttled(SECOND / 2));
}

#[test]
fn extra_credit_is_spent_once() {
    let limit = RateLimit {
        operations: rate(10, 1).map(|rate| rate.once(5)),
        ..RateLimit::NONE
    };
    let (_, mut gate, clock) = limiter(limit);
    let mut count = || (0..20).filter(|_| gate.take(1, 0) == Take::Ready).count();
    assert_eq!(count(), 6);
    clock.advance(100 * SECOND);
    assert_eq!(count(), 1);
}

#[test]
fn the_timer_fires_when_it_is_time() {
    let mut gate = RateLimiter::new(operations(1000, 1)).gate().unwrap();
    assert!(!fires(&gate, false));
    assert_eq!(gate.take(1, 0), Take::Ready);
    while gate.take(1, 0) == Take::Ready {}
    assert!(fires(&gate, true));
    while gate.take(1, 0) != Take::Ready {
        assert!(fires(&gate, true));
    }
    assert!(!fires(&gate, false), "a gate that is open must not wake");
}

#[test]
fn a_change_holds_at_once_and_wakes() {
    let (limiter, mut gate, _clock) = limiter(operations(1, 1));
    assert_eq!(gate.take(1, 0), Take::Ready);
    assert!(matches!(gate.take(1, 0), Take::Throttled(_)));
    limiter.set(RateLimit::NONE);
    assert!(fires(&gate, true));
    assert_eq!(gate.take(1, 0), Take::Ready);
    assert!(!fires(&gate, false));
    limiter.set(operations(1, 2));
    assert_eq!(gate.take(2, 0), Take::Ready);
    limiter.set(operations(4, 2));
    // The bucket was empty and stays so, but fills faster.
    assert_eq!(gate.take(1, 0), Take::Throttled(SECOND / 4));
}

#[test]
fn what_is_held_back_is_counted() {
    let (limiter, mut first, clock) = limiter(operations(1, 1));
    let mut second = limiter.gate().unwrap();
    assert_eq!(first.take(1, 0), Take::Ready);
    for gate in [&mut first, &mut second] {
        assert!(matches!(gate.take(1, 0), Take::Throttled(_)));
        assert!(matches!(gate.take(1, 0), Take::Throttled(_)));
    }
    clock.advance(SECOND);
    let expected = |events, time| Throttled { events, time };
    assert_eq!(limiter.throttled(), expected(2, 2 * SECOND));
    assert_eq!(second.take(1, 0), Take::Ready);
    clock.advance(SECOND);
    assert_eq!(limiter.throttled(), expected(2, 3 * SECOND));
    drop(first);
    clock.advance(SECOND);
    assert_eq!(limiter.throttled(), expected(2, 3 * SECOND));
}

proptest! {
    /// Whatever is asked when, no more passes than burst, rate and the last request allow; and who waits
    /// as long as told, passes.
    #[test]
    fn the_rate_holds(
        per_second in 1..u64::MAX,
        burst in 1..u64::MAX,
        once: u64,
        steps in prop::collection::vec((0..u64::MAX / 1000, 0..u64::MAX), 1..50),
    ) {
        let limit = RateLimit { bandwidth: rate(per_second, burst).map(|rate| rate.once(once)), ..RateLimit::NONE };
        let (_, mut gate, clock) = limiter(limit);
        let (mut passed, mut largest) = (0u128, 0u64);
        for (pause, bytes) in steps {
            clock.advance(Duration::from_nanos(pause % (1 << 50)));
            if let Take::Throttled(wait) = gate.take(1, bytes) {
                prop_assert!(wait > Duration::ZERO);
                if wait > Duration::from_secs(1 << 20) {
                    continue;
                }
                clock.advance(wait);
                prop_assert_eq!(gate.take(1, bytes), Take::Ready);
            }
            passed += u128::from(bytes);
            largest = largest.max(bytes);
            let elapsed = clock.now().as_nanos();
            let by_rate = elapsed.saturating_mul(per_second.into()) / 1_000_000_000 + 1;
            let allowed = u128::from(burst) + u128::from(once) + by_rate + u128::from(largest);
            prop_assert!(passed <= allowed, "{} passed, {} allowed", passed, allowed);
        }
    }
}
