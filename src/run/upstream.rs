//! Whoever has started a supervisor and wants to know of its VM: another program, at the other end of a channel.

use crate::Error;
use crate::contact::REQUEST_BYTES;
use kvmlet_control::{Channel, Received, Report, Request};
use kvmlet_spec::{Dialect, Failure, Outcome};
use kvmlet_sys::wait::{self, Slot, Until};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long whoever does not read may take before it misses the end.
const PATIENCE: Duration = Duration::from_secs(10);
/// What it means that nobody is left.
const GONE: Request = Request {
    number: 0,
    order: kvmlet_control::Order::Stop { patience_ms: None },
};

/// The way there, if there is one.
#[derive(Default)]
pub(crate) struct Upstream {
    channel: Option<Channel>,
    /// The VM goes on when nobody is left there.
    outlives: bool,
    /// Who waits for the VM to run, and for nothing else.
    ready: Option<OwnedFd>,
}

impl Upstream {
    /// By this channel. When its other end is closed the VM is to end, unless it `outlives` that.
    pub fn new(channel: Channel, outlives: bool) -> Self {
        Self {
            channel: Some(channel),
            outlives,
            ready: None,
        }
    }

    /// Tells somebody who waits for it that the VM runs, by a line.
    pub fn tell_ready(&mut self, ready: Option<OwnedFd>) {
        self.ready = ready;
    }

    /// Does anybody want to know anything?
    pub fn is_wanted(&self) -> bool {
        self.channel.is_some() || self.ready.is_some()
    }

    /// Readable when something is wanted.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// What is wanted. Whoever goes away wants the end.
    pub fn next(&mut self) -> Option<Request> {
        match self.channel.as_ref()?.receive(REQUEST_BYTES) {
            Received::One(message) => Request::decode(&message).ok(),
            Received::None => None,
            Received::Last => {
                self.channel = None;
                (!self.outlives).then_some(GONE)
            }
        }
    }

    /// Leaves it to another process, which has it too.
    pub fn close(&mut self) {
        (self.channel, self.ready) = (None, None);
    }

    /// Passes on what a VM has told. Whoever does not read misses it: a VM's end waits for nobody.
    pub fn pass_on(&mut self, report: &Report) {
        if matches!(report, Report::Ready)
            && let Some(ready) = self.ready.take()
        {
            // Who does not wait any longer need not be told.
            let _ = rustix::io::write(ready, b"ready\n");
        }
        if let Some(channel) = &self.channel {
            let _ = channel.try_send(&report.encode());
        }
    }

    /// Answers a request that no VM has to answer, or could not be asked.
    pub fn answer(&mut self, to: u32, done: bool) {
        let refused = (!done).then(|| {
            let mut failure = Failure::default();
            failure.message = "the VM does not take any more requests for now".into();
            failure.help = Some("try again".into());
            failure
        });
        self.pass_on(&Report::Answer { to, refused });
    }

    /// Tells how the run has ended, once there is room for that: all is cleared away by now.
    pub fn tell_end(&mut self, outcome: &Result<Outcome, Error>, dialect: Dialect) {
        if let Some(channel) = &self.channel {
            let outcome = match outcome {
                Ok(outcome) => outcome.clone(),
                Err(error) => error.outcome_in(dialect),
            };
            let _ = wait::one(Slot::writable(channel.as_fd()), Until::after(PATIENCE));
            self.pass_on(&Report::Ended(Box::new(outcome)));
        }
    }
}
