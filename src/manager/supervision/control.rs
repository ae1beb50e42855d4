//! An instance's control socket: each run has it anew. The program serves it, and tells its supervisor by it what the VM is
//! doing, as it tells others.

use super::socket::{Listener, path};
use kvmlet_control::{Connection, Order, Report, State};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::wait::Slot;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// In the directory of an instance.
const NAME: &str = "control.sock";
/// Programs that wait to be accepted.
const BACKLOG: i32 = 64;

/// That of a run.
pub(super) struct Control {
    listener: Listener,
    /// None when the program has told the end.
    program: Option<Connection>,
    /// What it has told of its interfaces, until that is asked for.
    interfaces: Option<Vec<String>>,
    /// What it has told of what the VM has done, until then.
    stats: Option<Vec<u8>>,
}

/// Connects to the program that runs an instance's VM.
pub(crate) fn connect(directory: &Directory) -> io::Result<Connection> {
    Connection::to(&path(directory, NAME))
}

impl Control {
    /// Makes the socket. Its supervisor is the first that is heard.
    pub fn listen(directory: &Directory) -> io::Result<Self> {
        let listener = Listener::new(directory, NAME, BACKLOG)?;
        let mut program = connect(directory)?;
        let asked = program.request(Order::Watch, Duration::ZERO);
        Ok(Self {
            listener,
            program: asked.is_ok().then_some(program),
            interfaces: None,
            stats: None,
        })
    }

    /// For the program.
    pub fn for_program(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// What is to be waited for.
    pub fn slot(&self) -> Slot<'_> {
        let program = self.program.as_ref();
        program.map_or(Slot::NOTHING, |program| Slot::readable(program.as_fd()))
    }

    /// What the VM does from now on, if that was told.
    pub fn next_state(&mut self) -> Option<State> {
        loop {
            match self.program.as_mut()?.next(Some(Instant::now())) {
                Ok(Some(Report::State(state))) => return Some(state),
                Ok(Some(Report::Interfaces(all))) => self.interfaces = Some(all),
                Ok(Some(Report::Stats(json))) => self.stats = Some(json),
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(_) => self.program = None,
            }
        }
    }

    /// Asks what the VM has done so far.
    pub fn ask_for_stats(&mut self) {
        if let Some(program) = &mut self.program {
            let _ = program.request(Order::Stats, Duration::ZERO);
        }
    }

    /// That, once, when it was told.
    pub fn stats(&mut self) -> Option<Vec<u8>> {
        self.stats.take()
    }

    /// Asks which addresses the VM's interfaces have.
    pub fn ask_for_interfaces(&mut self) {
        if let Some(program) = &mut self.program {
            let _ = program.request(Order::Interfaces, Duration::ZERO);
        }
    }

    /// They, once, when they were told.
    pub fn interfaces(&mut self) -> Option<Vec<String>> {
        self.interfaces.take()
    }

    /// Has a VM go on that stands still. Whether it does is told.
    pub fn resume(&mut self) {
        if let Some(program) = &mut self.program {
            let _ = program.request(Order::Resume, Duration::ZERO);
        }
    }
}
