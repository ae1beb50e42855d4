//! For how long nobody has wanted anything of a service.

use kvmlet_spec::Stats;
use std::time::{Duration, Instant};

/// Between two looks at what a VM has done: a part of the time, within these bounds.
const PARTS: u32 = 4;
const LOOKS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];
/// A service that takes more than this part of a CPU's time computes something.
const CPU_PART: u128 = 10;
/// Connections by the VM's sockets that are its supervisor's own.
const OWN: u64 = 1;

pub(super) struct Idleness {
    /// For how long it is to be.
    span: Duration,
    since: Instant,
    /// When it is asked again what the VM has done.
    look: Instant,
    seen: Option<Seen>,
    /// Its health was asked for since the last look, which takes connections and time.
    checked: bool,
}

/// What a VM had done.
struct Seen {
    at: Instant,
    sent: u64,
    received: u64,
    cpu_us: u64,
}

impl Idleness {
    pub fn new(span: Duration) -> Self {
        let now = Instant::now();
        Self {
            span,
            since: now,
            look: now,
            seen: None,
            checked: false,
        }
    }

    /// How long it is to be.
    pub fn span(&self) -> Duration {
        self.span
    }

    /// When it is to be looked at.
    pub fn due(&self) -> Instant {
        self.look
    }

    /// Is the VM to be asked what it has done now?
    pub fn looks(&mut self) -> bool {
        let now = Instant::now();
        let is_time = self.look <= now;
        if is_time {
            let [least, most] = LOOKS;
            self.look = now + (self.span / PARTS).clamp(least, most);
        }
        is_time
    }

    /// It is used.
    pub fn is_used(&mut self) {
        self.since = Instant::now();
    }

    /// Its health is asked for.
    pub fn is_checked(&mut self) {
        self.checked = true;
    }

    /// Nothing comes of it now: it is tried again later.
    pub fn put_off(&mut self, time: Duration) {
        self.since = Instant::now() + time;
    }

    /// Takes what the VM has done so far; true if it has been idle for as long as it was to be.
    pub fn take(&mut self, stats: &[u8]) -> bool {
        let Ok(stats) = serde_json::from_slice::<Stats>(stats) else {
            return false;
        };
        self.compare(&stats, Instant::now())
    }

    fn compare(&mut self, stats: &Stats, now: Instant) -> bool {
        let (vm, host) = (&stats.vm, stats.host.as_ref());
        let frames = vm.interfaces.iter();
        let [sent, received] = frames.fold([0_u64; 2], |[sent, received], it| {
            [
                sent.wrapping_add(it.transmit.frames),
                received.wrapping_add(it.receive.frames),
            ]
        });
        let cpu = host.into_iter().flat_map(|host| &host.vcpu_cpu_us);
        let seen = Seen {
            at: now,
            sent,
            received,
            cpu_us: cpu.fold(0, |sum, us| sum.wrapping_add(*us)),
        };
        let connections = vm.vsock.as_ref().map_or(0, |vsock| vsock.connections);
        let checked = std::mem::take(&mut self.checked);
        let is_used = self.seen.as_ref().is_none_or(|before| {
            before.has_traffic(&seen) || !checked && (before.computes(&seen) || connections > OWN)
        });
        self.seen = Some(seen);
        if is_used {
            self.since = self.since.max(now);
        }
        now.saturating_duration_since(self.since) >= self.span
    }
}

impl Seen {
    /// A guest that says nothing may hear what is for all, now and then.
    fn has_traffic(&self, now: &Self) -> bool {
        let seconds = now.at.saturating_duration_since(self.at).as_secs() + 1;
        now.sent != self.sent || now.received.wrapping_sub(self.received) > seconds
    }

    fn computes(&self, now: &Self) -> bool {
        let passed = now.at.saturating_duration_since(self.at).as_micros();
        u128::from(now.cpu_us.wrapping_sub(self.cpu_us)) * CPU_PART > passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(8);

    /// Of one after another, a second apart: is it idle then?
    fn idle(told: &[&str]) -> Vec<bool> {
        let mut idleness = Idleness::new(SPAN);
        let begun = Instant::now();
        let told = told.iter().enumerate();
        told.map(|(second, text)| {
            let now = begun + Duration::from_secs(second as u64);
            idleness.compare(&serde_json::from_str(text).unwrap(), now)
        })
        .collect()
    }

    fn text(sent: u64, received: u64, cpu_us: u64, connections: u64) -> String {
        format!(
            r#"{{"interfaces":[{{"transmit":{{"frames":{sent}}},"receive":{{"frames":{received}}}}}],"vsock":{{"connections":{connections}}},
            "host":{{"vcpu_cpu_us":[{cpu_us}]}}}}"#
        )
    }

    #[test]
    fn who_neither_speaks_nor_computes_is_idle() {
        let of = |one: &dyn Fn(u64) -> String| {
            let told: Vec<_> = (0..20).map(one).collect();
            idle(&told.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let from = |seen: &[bool]| seen.iter().position(|idle| *idle);
        assert_eq!(from(&of(&|_| text(7, 7, 7, 1))), Some(8));
        // A broadcast now and then, and a clock that ticks.
        assert_eq!(from(&of(&|n| text(7, n, 20_000 * n, 1))), Some(8));
        for busy in [
            of(&|n| text(n, 7, 7, 1)),
            of(&|n| text(7, 10 * n, 7, 1)),
            of(&|n| text(7, 7, 200_000 * n, 1)),
            // Somebody executes something.
            of(&|_| text(7, 7, 7, 2)),
        ] {
            assert_eq!(from(&busy), None);
        }
        let once = of(&|n| text(7 + u64::from(n >= 5), 7, 7, 1));
        assert_eq!(from(&once), Some(13));
    }
}
