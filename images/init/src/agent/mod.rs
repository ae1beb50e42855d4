//! The guest's agent: what PID 1 does beside reaping when the host wants a channel into the guest.
//!
//! One loop waits for all of it: signals, the host's connections, the streams of processes. Nothing in it has a timer of its
//! own, so a guest in which nothing happens makes no exits. Nothing blocks but the start of a program, for as long as the
//! kernel takes to load it. What a connection needs is taken from the kernel when it comes and given back when it goes.

mod buffer;
mod connection;
mod machine;
mod process;
mod renewal;
mod service;
mod session;
mod start;
mod transport;

use alloc::string::String;

use kvmlet_contract::channel::{Ended, Fault, MAX_SESSIONS, Output};
use kvmlet_contract::{AgentSpec, GuestSpec};
use linux_raw_sys::general::{
    POLLERR, POLLHUP, POLLIN, POLLOUT, SIGCHLD, SIGPIPE, SIGPWR, SIGUSR1, SIGUSR2, pollfd,
};

use crate::supervise::each_ended;
use crate::sys::{self, File, Pid};
use crate::{console, runtime};
use connection::Connection;
use service::Service;
use session::Session;

/// All connections, the guest's own among them.
const SLOTS: usize = MAX_SESSIONS + 1;
/// Signals, the listener, and of each connection itself and up to three streams.
const POLLED: usize = 2 + SLOTS * 4;

/// The connection to the host, which is being made while the machine is prepared.
pub struct Link {
    stream: File,
    spec: AgentSpec,
}

impl Link {
    /// Begins to connect to the host.
    pub fn open(spec: &AgentSpec) -> Result<Self, String> {
        Ok(Self {
            stream: transport::connect(spec)?,
            spec: spec.clone(),
        })
    }
}

/// Serves the host until the guest is to end; returns its exit code.
pub fn run(link: Link, guest: &GuestSpec) -> Result<u8, String> {
    let failed = |e| alloc::format!("serve the host: {e}");
    let mut agent = Agent {
        // Writing where nobody reads any more is an error enough.
        signals: File::signals(!(1 << (SIGPIPE - 1))).map_err(failed)?,
        listener: transport::listen(&link.spec)?,
        sessions: [const { None }; SLOTS],
        service: Service::new(guest),
    };
    agent.sessions[0] = Some(Session::new(link.stream).map_err(failed)?);
    loop {
        // SAFETY: what outlives a turn is in memory of the kernel's, or on the stack: see `Memory`.
        let outcome = unsafe { runtime::scoped(|| agent.turn()) };
        if let Some(code) = outcome {
            return Ok(code);
        }
    }
}

struct Agent {
    signals: File,
    listener: File,
    /// The first one is the guest's own, at first.
    sessions: [Option<Session>; SLOTS],
    service: Service,
}

/// What a descriptor that is waited for belongs to.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Connection(usize),
    Input(usize),
    Output(usize, Output),
}

/// What is waited for.
struct Waiting {
    polled: [pollfd; POLLED],
    sources: [Source; POLLED],
    count: usize,
}

impl Waiting {
    fn add(&mut self, source: Source, fd: i32, events: u32) {
        self.polled[self.count] = pollfd {
            fd,
            events: events as i16,
            revents: 0,
        };
        self.sources[self.count] = source;
        self.count += 1;
    }
}

impl Agent {
    /// Waits, deals with what has come, and returns the exit code when the guest is to end.
    fn turn(&mut self) -> Option<u8> {
        let mut waiting = self.waiting();
        let polled = &mut waiting.polled[..waiting.count];
        let _ = sys::poll(polled, self.service.left_ms());
        for index in 0..waiting.count {
            let events = waiting.polled[index].revents as u32;
            if events != 0 {
                self.handle(waiting.sources[index], events);
            }
        }
        self.service.tick();
        self.settle();
        self.service.outcome()
    }

    /// What is to be waited for. A descriptor of which nothing is wanted is left out: its end would be told all the time.
    fn waiting(&self) -> Waiting {
        let nothing = pollfd {
            fd: -1,
            events: 0,
            revents: 0,
        };
        let mut waiting = Waiting {
            polled: [nothing; POLLED],
            sources: [Source::Signals; POLLED],
            count: 0,
        };
        waiting.add(Source::Signals, self.signals.number(), POLLIN);
        waiting.add(Source::Listener, self.listener.number(), POLLIN);
        for (index, session) in self.sessions.iter().enumerate() {
            let Some(session) = session else { continue };
            let connection = &session.connection;
            let read = if connection.wants_read() { POLLIN } else { 0 };
            let write = if connection.wants_write() { POLLOUT } else { 0 };
            if read | write != 0 {
                waiting.add(Source::Connection(index), connection.number(), read | write);
            }
            let Some(process) = session.process(&self.service) else {
                continue;
            };
            if let Some(fd) = process.wants_write() {
                waiting.add(Source::Input(index), fd, POLLOUT);
            }
            for output in Output::ALL.into_iter().filter(|_| connection.has_room()) {
                if let Some(fd) = process.wants_read(output) {
                    waiting.add(Source::Output(index, output), fd, POLLIN);
                }
            }
        }
        waiting
    }

    fn handle(&mut self, source: Source, events: u32) {
        let service = &mut self.service;
        match source {
            Source::Signals => self.take_signals(),
            Source::Listener => self.accept(),
            Source::Connection(index) => {
                let Some(session) = &mut self.sessions[index] else {
                    return;
                };
                if events & POLLOUT != 0 {
                    session.connection.send();
                    session.serve(service);
                }
                if events & (POLLIN | POLLHUP | POLLERR) != 0 {
                    session.receive(service);
                }
            }
            Source::Input(index) => {
                if let Some(session) = &mut self.sessions[index]
                    && let (connection, Some(process)) = session.parts(service)
                {
                    process.write_input(connection);
                }
            }
            Source::Output(index, output) => {
                if let Some(session) = &mut self.sessions[index]
                    && let (connection, Some(process)) = session.parts(service)
                {
                    process.read_output(output, connection);
                }
            }
        }
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.next_signal() {
            match signal as u32 {
                SIGCHLD => self.reap(),
                SIGPWR => self.service.stop(true, None, None),
                SIGUSR1 | SIGUSR2 => self.service.stop(false, None, None),
                _ => self.service.forward(signal),
            }
        }
    }

    fn reap(&mut self) {
        let Self {
            sessions, service, ..
        } = self;
        let leader = service.pid();
        let mut see = |pid: Pid, status: i32| {
            if service.pid() == Some(pid) {
                return service.reaped(status);
            }
            let mut sessions = sessions.iter_mut().flatten();
            if let Some(process) = sessions.find_map(|it| it.executed(pid)) {
                process.has_ended(Ended::from_wait_status(status));
            }
        };
        each_ended(leader, &mut see);
    }

    fn accept(&mut self) {
        let Ok((stream, from_host)) = self.listener.accept() else {
            return;
        };
        if !from_host {
            return;
        }
        match self.sessions.iter_mut().find(|it| it.is_none()) {
            Some(slot) => match Session::new(stream) {
                Ok(session) => *slot = Some(session),
                Err(e) => console::say(format_args!("cannot take a connection of the host: {e}")),
            },
            None => {
                if let Ok(mut connection) = Connection::new(stream) {
                    let message = alloc::format!(
                        "do more at once: there are {SLOTS} connections into the guest already"
                    );
                    connection.fail(Fault::Busy, &message);
                    connection.send();
                }
            }
        }
    }

    /// Tells what there is to be told, sends what there is to be sent, and forgets connections that are over.
    fn settle(&mut self) {
        for slot in &mut self.sessions {
            let Some(session) = slot else { continue };
            session.settle(&mut self.service);
            session.connection.send();
            if session.connection.is_over() {
                session.hang_up();
                *slot = None;
            }
        }
    }
}
