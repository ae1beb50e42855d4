//! Reaching the guest of an instance that runs.

use super::audience::SOCKET;
use super::socket::address;
use kvmlet_control::agent::channel::Request;
use kvmlet_control::agent::{self, Agent, AgentError};
use kvmlet_sys::directory::Directory;
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// The host's side of the sockets of an instance's VM, in the instance's directory.
pub const VSOCK: &str = "vsock";

/// Connects to the socket of that name in the directory of an instance.
fn dial(directory: &Directory, name: &str, flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | flags;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address(directory, name)?)?;
    Ok(socket)
}

/// Connects to the supervisor of an instance, which speaks as its service's agent, once it is asked to
/// [attach](kvmlet_control::agent::channel::Client::attach) it.
///
/// # Errors
/// When it does not run.
pub fn attach(directory: &Directory) -> io::Result<Agent> {
    dial(directory, SOCKET, SocketFlags::empty()).map(Agent::new)
}

/// Asks the supervisor of an instance to do something with its service: [`Request::Signal`], [`Request::Stop`].
///
/// # Errors
/// When it does not run, or is not asked in this time.
pub fn ask(
    directory: &Directory,
    request: &Request<'_>,
    patience: Duration,
) -> Result<(), AgentError> {
    attach(directory)?.change(request, patience)
}

/// Connects to the agent in the guest of an instance, which has `patience` to answer.
///
/// # Errors
/// When it does not run, or its guest listens to nobody.
pub fn connect(directory: &Directory, patience: Duration) -> io::Result<Agent> {
    let mut dialling = Dialling::with(directory, SocketFlags::empty())?;
    let deadline = Instant::now() + patience;
    while !dialling.turn()? {
        if !wait::one(dialling.slot(), Until::Deadline(deadline))? {
            let seconds = patience.as_secs();
            return Err(io::Error::other(format!(
                "its guest has not answered in {seconds} s"
            )));
        }
    }
    Ok(dialling.agent())
}

/// A connection to the agent in a guest that is being made.
#[derive(Debug)]
pub(super) struct Dialling(agent::Dialling);

impl Dialling {
    /// Begins to connect, and waits for nobody.
    pub fn begin(directory: &Directory) -> io::Result<Self> {
        Self::with(directory, SocketFlags::NONBLOCK)
    }

    fn with(directory: &Directory, flags: SocketFlags) -> io::Result<Self> {
        // It may not run yet, or end at any moment.
        let unreached = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => io::Error::other("it has no channel now"),
            _ => error,
        };
        let dialling = dial(directory, VSOCK, flags).and_then(agent::Dialling::over);
        dialling.map(Self).map_err(unreached)
    }

    /// What is to be waited for.
    pub fn slot(&self) -> Slot<'_> {
        Slot::readable(self.0.as_fd())
    }

    /// Hears what there is without waiting; true once it is connected.
    pub fn turn(&mut self) -> io::Result<bool> {
        self.0.turn()
    }

    /// The agent, once it is connected.
    pub fn agent(self) -> Agent {
        self.0.agent()
    }
}
