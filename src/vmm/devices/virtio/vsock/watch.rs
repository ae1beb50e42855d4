//! What a device's thread waits for, all at once: there can be a thousand streams.

use super::connection::Connection;
use super::table::Token;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Who calls: numbers that no connection has.
pub(super) mod place {
    pub const ORDERS: u64 = 0;
    pub const HOST: u64 = 1;
    pub const RECEIVE: u64 = 2;
    pub const TRANSMIT: u64 = 3;
    pub const EVENTS: u64 = 4;
    pub const CALLED: u64 = 5;
}

/// Events that are looked at before others have their turn.
const BATCH: usize = 64;

/// Descriptors that are watched. It is made before its thread is confined, which opens nothing; so all that is added is
/// removed again when the thread's work ends.
#[derive(Clone)]
pub(super) struct Watch(Arc<OwnedFd>);

impl Watch {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self(Arc::new(epoll)))
    }

    pub fn add(&self, fd: impl AsFd, place: u64, flags: epoll::EventFlags) {
        let data = epoll::EventData::new_u64(place);
        match epoll::add(&self.0, fd, data, flags) {
            // It stays watched while the device stands still.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => log::debug!("vsock: not watched: {error}"),
        }
    }

    pub fn change(&self, fd: impl AsFd, place: u64, flags: epoll::EventFlags) {
        let data = epoll::EventData::new_u64(place);
        if let Err(error) = epoll::modify(&self.0, fd, data, flags) {
            log::debug!("vsock: not watched: {error}");
        }
    }

    pub fn remove(&self, fd: impl AsFd) {
        // What was never added need not be removed.
        let _ = epoll::delete(&self.0, fd);
    }

    /// Watches a connection's stream for what that waits for. It is told once, and then not again before the next time:
    /// what cannot go on for the guest's sake must not call all the time.
    pub fn follow(&self, connection: &mut Connection, token: Token) {
        let Some(interest) = connection.interest() else {
            return;
        };
        if connection.standing.armed == Some(interest) {
            return;
        }
        let flags = interest | epoll::EventFlags::ONESHOT;
        if let Some(stream) = connection.stream() {
            match connection.standing.watched {
                true => self.change(stream, token, flags),
                false => self.add(stream, token, flags),
            }
        }
        connection.standing.watched = true;
        connection.standing.armed = Some(interest);
    }

    /// Waits for the next events, which are in `events` then.
    pub fn wait(&self, events: &mut Vec<epoll::Event>, patience: Option<Duration>) {
        events.clear();
        events.reserve(BATCH);
        // Whole milliseconds, rounded up: the call that counts them is older.
        let patience = patience.map(|time| {
            let time = time.as_nanos().div_ceil(1_000_000).min(1 << 30) as i64;
            Timespec {
                tv_sec: time / 1000,
                tv_nsec: time % 1000 * 1_000_000,
            }
        });
        match epoll::wait(&self.0, spare_capacity(events), patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => log::debug!("vsock: {error}"),
        }
    }
}
