//! What an instance that runs can be asked for, by its control socket.

use crate::supervision::control;
use crate::{Error, Instance, State};
use kvmlet_control::{Connection, ConnectionError, Order, Report};
use kvmlet_spec::Stats;
use std::io;
use std::time::{Duration, Instant};

/// How long a supervisor may take: longer than it waits for its VM.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long it may take until what it has done is noted.
const NOTING: Duration = Duration::from_secs(10);
/// How long that is waited for where it is not known whether it was done.
const SOON: Duration = Duration::from_secs(1);

/// A connection to the supervisor of an instance's VM.
#[derive(Debug)]
pub struct Control<'a> {
    instance: &'a Instance,
    called: String,
    connection: Connection,
}

impl Instance {
    /// Connects to its VM's supervisor. `called` is what messages call it.
    ///
    /// # Errors
    /// [`Error::NotRunning`], and when it cannot be reached.
    pub fn control(&self, called: &str) -> Result<Control<'_>, Error> {
        let state = self.state()?;
        let called = called.to_owned();
        if !matches!(state, State::Running | State::Paused) {
            return Err(Error::NotRunning { called, state });
        }
        match control::connect(self.directory()) {
            Ok(connection) => Ok(Control {
                instance: self,
                called,
                connection,
            }),
            Err(error) => Err(self.unreached(called, error)),
        }
    }

    /// It may have ended meanwhile.
    fn unreached(&self, called: String, error: io::Error) -> Error {
        match self.state_after_end() {
            Ok(State::Running | State::Paused) | Err(_) => Error::Control {
                called,
                source: error.into(),
            },
            Ok(state) => Error::NotRunning { called, state },
        }
    }

    /// What it does now that its VM's supervisor is gone: its own notices that a moment later, and notes it.
    fn state_after_end(&self) -> Result<State, Error> {
        let deadline = Instant::now() + NOTING;
        loop {
            let state = self.state()?;
            let ran = matches!(state, State::Running | State::Paused);
            if !ran || Instant::now() >= deadline {
                return Ok(state);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Control<'_> {
    /// The connection itself.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Has its VM stand still. When this returns, that is noted.
    ///
    /// # Errors
    /// Why it does not.
    pub fn pause(&mut self) -> Result<(), Error> {
        self.become_other(State::Paused, Order::Pause)
    }

    /// Has its VM go on. When this returns, that is noted.
    ///
    /// # Errors
    /// Why it does not.
    pub fn unpause(&mut self) -> Result<(), Error> {
        self.become_other(State::Running, Order::Resume)
    }

    /// Has its VM take a signal: SIGKILL cuts its power.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn signal(&mut self, signal: u8) -> Result<(), Error> {
        self.ask(Order::Signal { signal }).map(drop)
    }

    /// What its VM has done so far.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn stats(&mut self) -> Result<Stats, Error> {
        let told = self.ask(Order::Stats)?;
        let stats = told.iter().rev().find_map(|report| match report {
            Report::Stats(json) => serde_json::from_slice(json).ok(),
            _ => None,
        });
        stats.ok_or_else(|| self.failed(io::Error::from(io::ErrorKind::InvalidData).into()))
    }

    /// Changes something of its VM while that runs: a limit, the balloon.
    ///
    /// # Errors
    /// Why that is not done.
    pub fn change(&mut self, order: Order) -> Result<(), Error> {
        self.ask(order).map(drop)
    }

    /// What its VM has done so far, as OpenMetrics text.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn metrics(self) -> Result<String, Error> {
        let Self {
            instance,
            called,
            connection,
        } = self;
        let scraped = connection.scrape(PATIENCE);
        scraped.map_err(|source| match source {
            ConnectionError::Closed => {
                instance.unreached(called, io::ErrorKind::ConnectionReset.into())
            }
            source => Error::Control { called, source },
        })
    }

    /// Which ports of the host lead to it, as `-p` takes them. Its supervisor knows that itself, and has that long to say so.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn published(&mut self, patience: Duration) -> Result<Vec<String>, Error> {
        let told = self.connection.ask(Order::Published, patience);
        let told = told.map_err(|error| self.failed(error))?;
        let ports = told.into_iter().filter_map(|report| match report {
            Report::Published(ports) => Some(ports),
            _ => None,
        });
        Ok(ports.flatten().collect())
    }

    fn ask(&mut self, order: Order) -> Result<Vec<Report>, Error> {
        let told = self.connection.ask(order, PATIENCE);
        told.map_err(|error| self.failed(error))
    }

    fn failed(&self, source: ConnectionError) -> Error {
        let called = self.called.clone();
        let is_over = matches!(source, ConnectionError::Closed | ConnectionError::Over(_));
        match is_over.then(|| self.instance.state_after_end()) {
            Some(Ok(state)) if !matches!(state, State::Running | State::Paused) => {
                Error::NotRunning { called, state }
            }
            _ => Error::Control { called, source },
        }
    }

    /// Has its VM do something else, and waits until that is noted.
    fn become_other(&mut self, wanted: State, order: Order) -> Result<(), Error> {
        let before = self.instance.state()?;
        if before == wanted {
            return Err(Error::Already {
                called: self.called.clone(),
                state: before,
            });
        }
        let asked = self.ask(order);
        let is_refused = |error: &Error| match error {
            Error::Control { source, .. } => matches!(source, ConnectionError::Refused(_)),
            _ => false,
        };
        // Who has asked for the same a moment before may have it already.
        if asked.as_ref().err().is_some_and(is_refused) && self.becomes(wanted)? {
            return Err(Error::Already {
                called: self.called.clone(),
                state: wanted,
            });
        }
        asked?;
        let deadline = Instant::now() + NOTING;
        while self.instance.state()? == before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Is it noted soon that its VM does that?
    fn becomes(&self, wanted: State) -> Result<bool, Error> {
        let deadline = Instant::now() + SOON;
        loop {
            match self.instance.state()? == wanted {
                true => return Ok(true),
                false if Instant::now() >= deadline => return Ok(false),
                false => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}
