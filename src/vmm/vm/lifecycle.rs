//! Built → Running ⇄ Paused → Stopped: what vCPU threads are told, and what they tell.

use super::exit::ExitReason;
use super::failure::Failure;
use super::kick;
use crate::devices::outlet::Recall;
use kvmlet_sys::event::Event;
use kvmlet_sys::thread::{lock, wait};
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// vCPUs run.
    Running,
    /// vCPUs stand still and can run again.
    Paused,
    /// The VM has ended.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Running => "running",
            State::Paused => "paused",
            State::Stopped => "stopped",
        })
    }
}

/// How a VM ended.
pub(super) type Outcome = Result<ExitReason, Failure>;

struct Inner<T> {
    state: State,
    /// Threads that are to be kicked out of KVM_RUN when `state` changes; each enters and leaves itself.
    threads: Vec<kick::Thread>,
    parked: usize,
    /// The number of the last question to vCPUs that stand still, and of the last that all have answered.
    asked: u64,
    answered: u64,
    told: Vec<T>,
    outcome: Option<Outcome>,
}

/// How long a vCPU that was kicked has to come.
const KICK_AGAIN: Duration = Duration::from_millis(10);

/// The meeting point of the vCPU threads with whoever directs them, and asks them for `T`.
pub(super) struct Lifecycle<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    ended: Event,
    /// Set unless vCPUs are to run: none waits for a reader of the console then.
    recall: Recall,
}

impl<T> Lifecycle<T> {
    pub fn new(ended: Event, recall: Recall) -> Self {
        let inner = Inner {
            state: State::Running,
            threads: Vec::new(),
            parked: 0,
            asked: 0,
            answered: 0,
            told: Vec::new(),
            outcome: None,
        };
        Self {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            ended,
            recall,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        lock(&self.inner)
    }

    /// Waits for vCPUs that are on their way. One may have been about to make a system call that waits, where a kick
    /// that came just before is lost, so they are kicked until they come.
    fn wait_kicking<'a>(&self, guard: MutexGuard<'a, Inner<T>>) -> MutexGuard<'a, Inner<T>> {
        let waited = self.changed.wait_timeout(guard, KICK_AGAIN);
        let (inner, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            kick::all(&inner.threads);
        }
        inner
    }

    pub fn state(&self) -> State {
        self.lock().state
    }

    /// Becomes readable when the VM has ended.
    pub fn ended(&self) -> &Event {
        &self.ended
    }

    /// A vCPU thread begins; from now on it is kicked when the state changes.
    pub fn enter(&self) {
        self.lock().threads.push(kick::Thread::this());
    }

    /// A vCPU thread ends.
    pub fn leave(&self) {
        self.lock().threads.retain(|thread| !thread.is_this());
        self.changed.notify_all();
    }

    /// Called by a vCPU thread outside KVM_RUN: returns true to go on, false to end; blocks while paused, and tells of
    /// itself when it is [asked](Self::ask).
    pub fn may_run(&self, tell: impl Fn() -> T) -> bool {
        let mut inner = self.lock();
        if inner.state == State::Paused {
            inner.parked += 1;
            let mut answered = inner.answered;
            self.changed.notify_all();
            while inner.state == State::Paused {
                if answered == inner.asked {
                    inner = wait(&self.changed, inner);
                    continue;
                }
                answered = inner.asked;
                drop(inner);
                let told = tell();
                inner = self.lock();
                inner.told.push(told);
                self.changed.notify_all();
            }
            inner.parked -= 1;
        }
        inner.state == State::Running
    }

    /// Has all vCPUs, that many, tell of themselves, which stand still. The state found is the error.
    pub fn ask(&self, vcpus: usize) -> Result<Vec<T>, State> {
        let mut inner = self.lock();
        inner.told.clear();
        inner.asked += 1;
        self.changed.notify_all();
        while inner.state == State::Paused && inner.told.len() < vcpus {
            inner = wait(&self.changed, inner);
        }
        inner.answered = inner.asked;
        match inner.state {
            State::Paused => Ok(std::mem::take(&mut inner.told)),
            other => Err(other),
        }
    }

    /// Ends the VM; the first outcome counts.
    pub fn end(&self, outcome: Outcome) {
        let mut inner = self.lock();
        if inner.outcome.is_none() {
            inner.outcome = Some(outcome);
            inner.state = State::Stopped;
            self.recall.set(true);
            // A vCPU thread that ends its VM is outside the guest already.
            kick::all(inner.threads.iter().filter(|thread| !thread.is_this()));
            self.ended.signal();
        }
        self.changed.notify_all();
    }

    /// Has vCPU threads wait, before there are any.
    pub fn begin_paused(&self) {
        self.lock().state = State::Paused;
    }

    /// Running → Paused; returns when no vCPU is inside the guest any more. The state found is the error.
    pub fn pause(&self) -> Result<(), State> {
        let mut inner = self.lock();
        if inner.state != State::Running {
            return Err(inner.state);
        }
        inner.state = State::Paused;
        self.recall.set(true);
        kick::all(&inner.threads);
        while inner.state == State::Paused && inner.parked < inner.threads.len() {
            inner = self.wait_kicking(inner);
        }
        match inner.state {
            State::Paused => Ok(()),
            other => Err(other),
        }
    }

    /// Paused → Running. The state found is the error.
    pub fn resume(&self) -> Result<(), State> {
        let mut inner = self.lock();
        if inner.state != State::Paused {
            return Err(inner.state);
        }
        inner.state = State::Running;
        self.recall.set(false);
        self.changed.notify_all();
        Ok(())
    }

    /// Has each vCPU come out of its guest once, and tell it of the time that it stood still.
    pub fn call_back(&self) {
        kick::all(&self.lock().threads);
    }

    /// Blocks until the VM has ended and every vCPU thread has left.
    pub fn wait_for_end(&self) -> Outcome {
        let mut inner = self.lock();
        loop {
            match &inner.outcome {
                Some(outcome) if inner.threads.is_empty() => return outcome.clone(),
                Some(_) => inner = self.wait_kicking(inner),
                None => inner = wait(&self.changed, inner),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    fn lifecycle() -> Arc<Lifecycle<()>> {
        Arc::new(Lifecycle::new(Event::new().unwrap(), Recall::default()))
    }

    /// Stands in for a vCPU thread that is never inside KVM_RUN for long.
    fn spin(lifecycle: &Arc<Lifecycle<()>>) -> thread::JoinHandle<()> {
        kick::install().unwrap();
        let lifecycle = lifecycle.clone();
        let entered = Arc::new(std::sync::Barrier::new(2));
        let inside = entered.clone();
        let thread = thread::spawn(move || {
            lifecycle.enter();
            inside.wait();
            while lifecycle.may_run(|| unreachable!()) {
                thread::yield_now();
            }
            lifecycle.leave();
        });
        entered.wait();
        thread
    }

    #[test]
    fn moves_follow_the_diagram() {
        let lifecycle = lifecycle();
        let threads = [spin(&lifecycle), spin(&lifecycle)];
        assert_eq!(lifecycle.resume(), Err(State::Running));
        lifecycle.pause().unwrap();
        assert_eq!(lifecycle.lock().parked, 2);
        assert_eq!(lifecycle.pause(), Err(State::Paused));
        lifecycle.resume().unwrap();
        lifecycle.pause().unwrap();
        lifecycle.end(Ok(ExitReason::Stopped));
        lifecycle.end(Ok(ExitReason::Panic));
        assert_eq!(lifecycle.wait_for_end(), Ok(ExitReason::Stopped));
        assert_eq!(
            (lifecycle.pause(), lifecycle.resume()),
            (Err(State::Stopped), Err(State::Stopped))
        );
        assert_eq!(lifecycle.ended().take(), 1);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn an_end_during_a_pause_is_an_end() {
        let lifecycle = lifecycle();
        let thread = spin(&lifecycle);
        let ender = lifecycle.clone();
        let ending = thread::spawn(move || ender.end(Ok(ExitReason::Reset)));
        let _ = lifecycle.pause();
        ending.join().unwrap();
        assert_eq!(lifecycle.state(), State::Stopped);
        assert_eq!(lifecycle.wait_for_end(), Ok(ExitReason::Reset));
        thread.join().unwrap();
    }
}
