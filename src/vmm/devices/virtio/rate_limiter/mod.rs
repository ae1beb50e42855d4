//! Rate limits by token buckets, for disks and for each direction of an interface.
//!
//! One [`RateLimiter`] holds the buckets; every worker that draws from them has a [`Gate`] of its own, with a
//! timer to poll. So several queues share one limit, and none can miss another's wake-up.
//!
//! A request passes while the buckets hold at least one token, and takes all that it costs even if that
//! leaves a debt. So a request larger than the burst passes, large ones do not starve behind small ones, and
//! over any time `t` no more passes than `burst + rate × t` and the last request's size.

mod bucket;

use crate::config::RateLimit;
pub(in crate::devices) use bucket::Bucket;
pub use bucket::Level;
use kvmlet_sys::thread::lock;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The longest that a timer is set for; whoever wakes then asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment; never runs backwards.
    fn now(&self) -> Duration;
}

/// The host's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        let now = clock_gettime(ClockId::Monotonic);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
    }
}

/// A worker that waits, with the timer that wakes it.
#[derive(Debug)]
struct Waiter {
    gate: u64,
    timer: Arc<OwnedFd>,
    since: Duration,
}

#[derive(Debug)]
struct State {
    operations: Option<Bucket>,
    bandwidth: Option<Bucket>,
    refilled: Duration,
    /// Time does not pass for it: its device sleeps.
    frozen: bool,
    waiting: Vec<Waiter>,
    next_gate: u64,
    throttled: Throttled,
}

impl State {
    fn refill(&mut self, now: Duration) {
        if self.frozen {
            return;
        }
        let elapsed = now.saturating_sub(self.refilled);
        self.refilled = now.max(self.refilled);
        for bucket in [&mut self.operations, &mut self.bandwidth]
            .into_iter()
            .flatten()
        {
            bucket.refill(elapsed);
        }
    }

    fn wait(&self, operations: u64, bytes: u64) -> Duration {
        let wait = |bucket: &Option<Bucket>, cost| match bucket {
            Some(bucket) if cost > 0 => bucket.wait(cost),
            _ => Duration::ZERO,
        };
        wait(&self.operations, operations).max(wait(&self.bandwidth, bytes))
    }

    fn spend(&mut self, operations: u64, bytes: u64) {
        for (bucket, cost) in [
            (&mut self.operations, operations),
            (&mut self.bandwidth, bytes),
        ] {
            if let Some(bucket) = bucket {
                bucket.spend(cost);
            }
        }
    }

    /// Ends a gate's wait and counts its time.
    fn go(&mut self, gate: u64, now: Duration) {
        if let Some(at) = self.waiting.iter().position(|waiter| waiter.gate == gate) {
            let waiter = self.waiting.swap_remove(at);
            self.throttled.time += now.saturating_sub(waiter.since);
        }
    }
}

/// How often and how long work was held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// Times that a worker had to wait.
    pub events: u64,
    /// Time that workers stood waiting, added up over them.
    pub time: Duration,
}

struct Shared {
    /// Spares the lock where nothing is limited.
    limited: AtomicBool,
    state: Mutex<State>,
    clock: Box<dyn Clock>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves balances as they were: still usable.
        lock(&self.state)
    }
}

/// A limit in force. Clones share it; it can be changed while workers draw from it.
#[derive(Clone)]
pub struct RateLimiter(Arc<Shared>);

impl RateLimiter {
    /// Full buckets by the host's clock.
    pub fn new(limit: RateLimit) -> Self {
        Self::with_clock(limit, Monotonic)
    }

    /// Full buckets by a clock of the caller's.
    pub fn with_clock(limit: RateLimit, clock: impl Clock + 'static) -> Self {
        let state = State {
            operations: limit.operations.map(Bucket::full),
            bandwidth: limit.bandwidth.map(Bucket::full),
            refilled: clock.now(),
            frozen: false,
            waiting: Vec::new(),
            next_gate: 0,
            throttled: Throttled::default(),
        };
        Self(Arc::new(Shared {
            limited: AtomicBool::new(limit != RateLimit::NONE),
            state: Mutex::new(state),
            clock: Box::new(clock),
        }))
    }

    /// Changes the limit; it holds at once, also for those who wait.
    pub fn set(&self, limit: RateLimit) {
        let mut state = self.0.state();
        state.refill(self.0.clock.now());
        state.operations = bucket::change(state.operations, limit.operations);
        state.bandwidth = bucket::change(state.bandwidth, limit.bandwidth);
        self.0
            .limited
            .store(limit != RateLimit::NONE, Ordering::Release);
        wake(&state);
    }

    /// Has time stand still for it: what its device does not use while that sleeps is not there when it wakes.
    pub(in crate::devices) fn freeze(&self) {
        let mut state = self.0.state();
        state.refill(self.0.clock.now());
        state.frozen = true;
    }

    /// Has time pass again, and those who wait ask again.
    pub(in crate::devices) fn thaw(&self) {
        let mut state = self.0.state();
        if std::mem::take(&mut state.frozen) {
            state.refilled = self.0.clock.now();
            wake(&state);
        }
    }

    /// How full its buckets are.
    pub(in crate::devices) fn levels(&self) -> [Option<Level>; 2] {
        let mut state = self.0.state();
        state.refill(self.0.clock.now());
        [&state.operations, &state.bandwidth].map(|bucket| bucket.as_ref().map(Bucket::level))
    }

    /// Makes its buckets as full as others were, within their bursts; a limit that these did not have begins anew.
    pub(in crate::devices) fn set_levels(&self, levels: [Option<Level>; 2]) {
        let mut state = self.0.state();
        let State {
            operations,
            bandwidth,
            ..
        } = &mut *state;
        for (bucket, level) in [operations, bandwidth].into_iter().zip(levels) {
            if let (Some(bucket), Some(level)) = (bucket, level) {
                bucket.set_level(level);
            }
        }
    }

    /// Lets every waiting worker ask again, as after a test's clock has moved.
    #[cfg(test)]
    pub(crate) fn wake(&self) {
        wake(&self.0.state());
    }

    /// What was held back so far; waits that have not ended count up to now.
    pub fn throttled(&self) -> Throttled {
        let state = self.0.state();
        let now = self.0.clock.now();
        let mut throttled = state.throttled;
        for waiter in &state.waiting {
            throttled.time += now.saturating_sub(waiter.since);
        }
        throttled
    }

    /// A worker's own access to the limit.
    ///
    /// # Errors
    /// When the host gives no timer.
    pub fn gate(&self) -> io::Result<Gate> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = Arc::new(timerfd_create(TimerfdClockId::Monotonic, flags)?);
        let mut state = self.0.state();
        let id = state.next_gate;
        state.next_gate += 1;
        drop(state);
        Ok(Gate {
            shared: self.0.clone(),
            id,
            timer,
            waits: false,
        })
    }
}

/// What became of a request for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Go on; the tokens are spent.
    Ready,
    /// Nothing was spent. Ask again when the gate's timer is readable, in about this time.
    Throttled(Duration),
}

/// One worker's access to a [`RateLimiter`].
pub struct Gate {
    shared: Arc<Shared>,
    id: u64,
    timer: Arc<OwnedFd>,
    waits: bool,
}

impl Gate {
    /// Takes tokens for this many operations with this many bytes, or none and sets the timer.
    pub fn take(&mut self, operations: u64, bytes: u64) -> Take {
        if !self.waits && !self.shared.limited.load(Ordering::Acquire) {
            return Take::Ready;
        }
        let mut state = self.shared.state();
        let now = self.shared.clock.now();
        state.refill(now);
        let wait = state.wait(operations, bytes);
        if wait.is_zero() {
            state.spend(operations, bytes);
            state.go(self.id, now);
            if std::mem::take(&mut self.waits) {
                set_timer(&self.timer, Duration::ZERO);
            }
            return Take::Ready;
        }
        if !std::mem::replace(&mut self.waits, true) {
            state.throttled.events += 1;
            let waiter = Waiter {
                gate: self.id,
                timer: self.timer.clone(),
                since: now,
            };
            state.waiting.push(waiter);
        }
        set_timer(&self.timer, wait.min(LONGEST_WAIT));
        Take::Throttled(wait)
    }

    /// Readable when what was throttled may be asked for again, which it must be: only
    /// [`take`](Self::take) makes it unreadable. There is nothing to read from it.
    pub fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let now = self.shared.clock.now();
        self.shared.state().go(self.id, now);
    }
}

fn wake(state: &State) {
    for waiter in &state.waiting {
        set_timer(&waiter.timer, Duration::from_nanos(1));
    }
}

/// Makes the timer unreadable, and readable again after that time; zero is never.
fn set_timer(timer: &OwnedFd, after: Duration) {
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let value = Itimerspec {
        it_interval: zero,
        it_value: Timespec {
            tv_sec: after.as_secs() as i64,
            tv_nsec: after.subsec_nanos().into(),
        },
    };
    // Only a bad descriptor or a bad time can fail.
    let set = timerfd_settime(timer, TimerfdTimerFlags::empty(), &value);
    debug_assert!(set.is_ok(), "{set:?}");
}

#[cfg(test)]
pub(in crate::devices) mod tests;
