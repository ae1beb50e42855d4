//! From single events to sums.

use std::collections::HashMap;
use std::time::Duration;

/// What processes have done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvmUse {
    /// Times that KVM_RUN has returned: exits to user space.
    pub exits: u64,
    /// CPU time in KVM_RUN, the guest's and KVM's.
    pub inside: Duration,
    /// CPU time elsewhere: the VMM's own, with the system calls that it makes.
    pub outside: Duration,
}

/// What happened to a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// KVM_RUN begins.
    Enter,
    /// A system call of that kind ends.
    Leave,
    /// The thread gets a CPU.
    In,
    /// It loses the CPU.
    Out,
}

/// An event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Nanoseconds.
    pub time: u64,
    pub thread: u32,
    pub what: What,
}

#[derive(Default)]
struct Thread {
    in_run: bool,
    /// Since when it has its CPU and is where it is.
    since: Option<u64>,
}

/// Adds up events in the order of time.
#[derive(Default)]
pub(super) struct Account {
    threads: HashMap<u32, Thread>,
    exits: u64,
    inside: u64,
    outside: u64,
}

impl Account {
    pub fn add(&mut self, record: Record) {
        let thread = self.threads.entry(record.thread).or_default();
        if let Some(since) = thread.since {
            let spent = record.time.saturating_sub(since);
            *if thread.in_run {
                &mut self.inside
            } else {
                &mut self.outside
            } += spent;
        }
        thread.since = (record.what != What::Out).then_some(record.time);
        match record.what {
            What::Enter => thread.in_run = true,
            What::Leave if thread.in_run => {
                thread.in_run = false;
                self.exits += 1;
            }
            _ => {}
        }
    }

    /// The sums at that time; who has a CPU has it until then.
    pub fn close(mut self, until: u64) -> KvmUse {
        for thread in self.threads.values() {
            if let Some(since) = thread.since {
                *if thread.in_run {
                    &mut self.inside
                } else {
                    &mut self.outside
                } += until.saturating_sub(since);
            }
        }
        KvmUse {
            exits: self.exits,
            inside: Duration::from_nanos(self.inside),
            outside: Duration::from_nanos(self.outside),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(events: &[(u64, u32, What)], until: u64) -> (u64, u64, u64) {
        let mut account = Account::default();
        for (time, thread, what) in events {
            account.add(Record {
                time: *time,
                thread: *thread,
                what: *what,
            });
        }
        let sums = account.close(until);
        (
            sums.exits,
            sums.inside.as_nanos() as u64,
            sums.outside.as_nanos() as u64,
        )
    }

    #[test]
    fn time_on_a_cpu_is_inside_or_outside() {
        use What::*;
        let events = [
            (10, 1, In),
            (15, 1, Enter),
            (20, 1, Out),
            (50, 1, In),
            (53, 1, Leave),
            (60, 1, Out),
        ];
        assert_eq!(sum(&events, 100), (1, 5 + 3, 5 + 7));
    }

    #[test]
    fn other_calls_are_no_exits_and_threads_do_not_mix() {
        use What::*;
        let events = [
            (0, 1, In),
            (0, 2, In),
            (5, 1, Leave),
            (6, 2, Enter),
            (8, 1, Out),
        ];
        // The second is still in the guest at the end.
        assert_eq!(sum(&events, 10), (0, 4, 8 + 6));
    }
}
