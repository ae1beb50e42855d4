//! What the only VM of a server tells, as it comes.

use super::subject::Alone;
use kvmlet_control::{Connection, ConnectionError, Order};
use kvmlet_sys::wait::Slot;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the VM has to say what it does.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long those have who wait for an answer when it has ended.
const LAST: Duration = Duration::from_secs(5);

/// A connection on which it tells what it does.
#[derive(Debug)]
pub struct Heard {
    vm: Arc<Alone>,
    connection: Connection,
    ended: Option<Instant>,
}

impl Heard {
    /// Of a VM that is there.
    ///
    /// # Errors
    /// Why it is not.
    pub fn of(vm: &Arc<Alone>) -> Result<Self, ConnectionError> {
        let mut connection = Connection::to(&vm.socket).map_err(|error| {
            let found = vm.socket.metadata();
            // The kernel says of it that nobody listens.
            match found.is_ok_and(|found| !found.file_type().is_socket()) {
                true => io::Error::other("it is no socket"),
                false => error,
            }
        })?;
        let told = connection.ask(Order::Watch, PATIENCE)?;
        told.into_iter().for_each(|it| vm.history().note(it));
        Ok(Self {
            vm: Arc::clone(vm),
            connection,
            ended: None,
        })
    }

    /// What is waited for on its behalf.
    pub fn slot(&self) -> Slot<'_> {
        match self.ended {
            None => Slot::readable(self.connection.as_fd()),
            Some(_) => Slot::NOTHING,
        }
    }

    /// When there is something to do without that.
    pub fn due(&self) -> Option<Instant> {
        self.ended.map(|ended| ended + LAST)
    }

    /// Notes what it has told.
    pub fn turn(&mut self) {
        while self.ended.is_none() {
            match self.connection.next(Some(Instant::now())) {
                Ok(Some(report)) => self.vm.history().note(report),
                Ok(None) => return,
                // Its supervisor is gone, and the VM with it.
                Err(_) => self.vm.history().end(None),
            }
            if self.vm.history().has_ended() {
                self.ended = Some(Instant::now());
            }
        }
    }

    /// The VM has ended, and nobody waits for an answer any more, or for too long.
    pub fn is_over(&self, none_waits: bool) -> bool {
        self.ended
            .is_some_and(|ended| none_waits || ended.elapsed() >= LAST)
    }
}
