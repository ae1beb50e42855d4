//! The way to a supervisor: the channel of the program that has started it, or the socket at which any other finds it.

use crate::Error;
use kvmlet_control::{
    Channel, Connection, ConnectionError, LONGEST, Order, Received, Report, Request,
};
use kvmlet_sys::wait::{self, Slot, Until};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long a supervisor may take to read a request.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Link {
    /// With the number of the last request.
    Channel(Channel, u32),
    Socket(Box<Connection>),
}

impl Link {
    /// Asks for something, and returns the number that its answer will have.
    pub fn ask(&mut self, order: Order) -> Result<u32, Error> {
        match self {
            Self::Channel(channel, asked) => {
                *asked = asked.wrapping_add(1).max(1);
                let number = *asked;
                let request = Request { number, order };
                // A supervisor that is gone is noticed by who waits for its answer.
                let _ = channel.send(&request.encode());
                Ok(number)
            }
            Self::Socket(connection) => connection.request(order, PATIENCE).map_err(lost),
        }
    }

    /// What is told next; none if that is not in time.
    pub fn next(&mut self, until: Until) -> Result<Option<Report>, Error> {
        let channel = match self {
            Self::Channel(channel, _) => channel,
            Self::Socket(connection) => {
                let deadline = match until {
                    Until::Now => Some(Instant::now()),
                    Until::Deadline(at) => Some(at),
                    Until::Forever => None,
                };
                return connection.next(deadline).map_err(lost);
            }
        };
        loop {
            let come = wait::one(Slot::readable(channel.as_fd()), until);
            if !come.map_err(Error::Lost)? {
                return Ok(None);
            }
            match channel.receive(LONGEST) {
                Received::Last => return Err(Error::Gone),
                Received::None => {}
                Received::One(message) => {
                    // Whoever has taken a VM over may send what is none.
                    if let Ok(report) = Report::decode(&message) {
                        return Ok(Some(report));
                    }
                }
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Channel(channel, _) => channel.as_fd(),
            Self::Socket(connection) => connection.as_fd(),
        }
    }
}

/// What it means that a connection cannot be used any more.
fn lost(error: ConnectionError) -> Error {
    match error {
        ConnectionError::Late(_) => Error::Unheard,
        ConnectionError::Io(error) => Error::Lost(error),
        _ => Error::Gone,
    }
}
