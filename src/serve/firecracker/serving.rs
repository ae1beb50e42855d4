//! The loop: clients and their VM, none of whom is waited for alone.

use super::vm::Vm;
use super::{Fault, SERVER, fault_message};
use crate::http::{Answer, ClientId, Manner, NOTHING_COMES, Peers, Server};
use kvmlet_sys::signals::Signals;
use kvmlet_sys::wait::{self, Slot, Until};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// What ends this process, and the VM with it, at once.
const ENDING: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Programs that are served at a time, as Firecracker has it.
const SEATS: usize = 10;

fn manner(longest_body: usize) -> Manner {
    Manner {
        name: SERVER,
        seats: SEATS,
        longest_body,
        // Clients rely on it: Firecracker's server never closes.
        old_go_on: true,
        comes: NOTHING_COMES,
        // Whoever may write to the socket's file is meant to.
        peers: Peers::All,
        descriptors: 0,
        refuse: |status, why| {
            let body = match status {
                503 => serde_json::json!({ "error": why }).to_string(),
                _ => fault_message(why),
            };
            Answer::new(status, Some(body))
        },
    }
}

/// A VM and those who ask it for something.
pub struct Serving {
    server: Option<Server>,
    signals: Signals,
    vm: Vm,
    /// Who waits for what the VM was asked for, if it is a client's wish.
    asker: Option<ClientId>,
}

impl Serving {
    /// At a socket, or without an API.
    pub fn new(listener: Option<OwnedFd>, payload_bytes: usize, vm: Vm) -> Result<Self, Fault> {
        let server = listener.map(|listener| {
            let nonblocking = rustix::io::ioctl_fionbio(&listener, true);
            nonblocking.map(|()| Server::new(listener, manner(payload_bytes)))
        });
        let lost = |error: io::Error| Fault(format!("the host gives no events: {error}"));
        Ok(Self {
            server: server.transpose().map_err(|error| lost(error.into()))?,
            signals: Signals::take(&ENDING).map_err(lost)?,
            vm,
            asker: None,
        })
    }

    /// Serves until the VM has ended, and returns the exit code. A VM that `starts` was described already.
    pub fn run(mut self, starts: bool) -> Result<u8, Fault> {
        self.vm.prepare();
        if starts {
            self.vm.start()?;
        }
        let code = self.until_end(starts)?;
        if let Some(server) = self.server {
            // Nobody is left to tell when it cannot be.
            let _ = server.finish();
        }
        Ok(code)
    }

    fn until_end(&mut self, starts: bool) -> Result<u8, Fault> {
        let lost = |error: io::Error| Fault(format!("the host gives no events: {error}"));
        loop {
            self.wait().map_err(lost)?;
            if let Some(signal) = self.signals.next().map_err(lost)? {
                self.vm.end();
                return Ok(128 + signal as u8);
            }
            if let Some(server) = &mut self.server {
                server.turn();
            }
            if let Some(answer) = self.vm.turn() {
                match (self.asker.take(), &mut self.server) {
                    (Some(client), Some(server)) => server.answer(client, &answer),
                    // What a file describes, and cannot be.
                    (None, _) if starts && answer.status == 400 && !self.vm.has_started() => {
                        self.vm.end();
                        return Ok(super::code::FAILED);
                    }
                    _ => {}
                }
            }
            if let Some(code) = self.vm.exit() {
                return Ok(code);
            }
            self.ask();
            if self.vm.due().is_some_and(|due| due <= Instant::now()) {
                // Somebody reads its answer in the log.
                let _ = self.vm.measure();
            }
        }
    }

    /// Asks the VM for what clients want, until there is nothing or it has not answered.
    fn ask(&mut self) {
        let Some(server) = &mut self.server else {
            return;
        };
        while !self.vm.is_busy()
            && let Some((client, request)) = server.next_request()
        {
            match self.vm.handle(&request) {
                Some(answer) => server.answer(client, &answer),
                None => self.asker = Some(client),
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let mut slots = vec![Slot::readable(self.signals.as_fd())];
        slots.extend(self.vm.slots());
        let mut due = self.vm.due();
        if let Some(server) = &self.server {
            slots.extend(server.slots());
            due = due.into_iter().chain(server.due()).min();
        }
        wait::any_of(&mut slots, Until::from(due))
    }
}
