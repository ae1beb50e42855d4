//! Who asks a VM's supervisor for something, one at a time: it serves few, and what two have asked for at once the second one
//! would be refused.

use super::problem::{BUSY, Problem};
use kvmlet_manager::{Control, Instance, View};
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long others may take: a VM that does not answer keeps its supervisor for longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whom somebody asks now, by their ids.
static ASKED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static DONE: Condvar = Condvar::new();

fn asked() -> MutexGuard<'static, BTreeSet<String>> {
    ASKED.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// Nobody else asks that VM.
#[must_use = "it ends with this"]
#[derive(Debug)]
pub struct InTurn(String);

impl InTurn {
    /// Waits until nobody else does.
    pub fn of(instance: &Instance, called: &str) -> Result<Self, Problem> {
        Self::wait(instance.id().as_str(), called, PATIENCE)
    }

    fn wait(id: &str, called: &str, patience: Duration) -> Result<Self, Problem> {
        let deadline = Instant::now() + patience;
        let mut all = asked();
        while all.contains(id) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let detail = format!("VM `{called}` is being asked for something by others");
                return Err(Problem::new(BUSY, detail));
            }
            let waited = DONE.wait_timeout(all, left);
            all = waited.unwrap_or_else(|broken| broken.into_inner()).0;
        }
        all.insert(id.into());
        Ok(Self(id.into()))
    }
}

impl Drop for InTurn {
    fn drop(&mut self) {
        asked().remove(&self.0);
        DONE.notify_all();
    }
}

/// A connection to a VM's supervisor, as long as it is this one's turn.
#[derive(Debug)]
pub struct Asking<'a> {
    pub control: Control<'a>,
    _turn: InTurn,
}

/// Connects to a VM's supervisor, in turn.
pub fn ask<'a>(instance: &'a Instance, view: &View) -> Result<Asking<'a>, Problem> {
    let _turn = InTurn::of(instance, view.called())?;
    let control = instance.control(view.called())?;
    Ok(Asking { control, _turn })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_asks_at_a_time_and_nobody_waits_for_ever() {
        let short = Duration::from_millis(10);
        let first = InTurn::wait("one", "web", short).unwrap();
        let other = InTurn::wait("two", "db", short).unwrap();
        let problem = InTurn::wait("one", "web", short).unwrap_err();
        assert_eq!((problem.status, problem.retryable), (503, true));
        assert!(problem.detail.contains("`web`"), "{}", problem.detail);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| InTurn::wait("one", "web", Duration::from_secs(100)));
            drop(first);
            drop(waits.join().unwrap().unwrap());
        });
        drop(other);
        assert!(asked().is_empty());
    }
}
