//! What networks need while a VM runs. Their rules are looked after in the supervisor's own loop. Strangers, that is
//! clients of published ports and whoever answers for names, are served by a process beside it: they have never been
//! where the rights of a VM's end are.

use crate::Error;
use crate::console::only_write_to_terminals;
use kvmlet_host::net::{self, Network, Proxy, Watch};
use kvmlet_host::rights;
use kvmlet_sys::descriptors;
use kvmlet_sys::process::{self, Child, Ended, Fork, Lifeline};
use kvmlet_sys::wait::{self, Slot, Until};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use rustix::stdio::{dup2_stdin, dup2_stdout};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long the process has to end by itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service of all networks of a VM. Dropping it ends it; that comes before the networks' own end.
pub(crate) struct NetworkService {
    watches: Vec<Watch>,
    server: Option<Server>,
}

/// The process that serves strangers.
struct Server {
    child: Child,
    /// Nothing is ever written to it: its end is the process's.
    stop: OwnedFd,
}

impl NetworkService {
    /// For networks that were set up. This process has one thread.
    pub fn start(networks: &mut [Network]) -> Result<Self, Error> {
        let mut proxies = Vec::new();
        for network in networks.iter_mut() {
            proxies.extend(network.proxy()?);
        }
        let server = match proxies.is_empty() {
            true => None,
            false => Some(Server::fork(proxies).map_err(|source| Error::Host {
                what: "a process for clients of published ports",
                source,
            })?),
        };
        let watches = networks.iter_mut().filter_map(Network::watch).collect();
        Ok(Self { watches, server })
    }

    /// What is waited for on its behalf.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let news = self.watches.iter().flat_map(Watch::fds);
        let server = self.server.iter().map(|server| server.child.as_fd());
        news.chain(server).map(Slot::readable)
    }

    /// When there is something to do without any of that.
    pub fn due(&self) -> Option<Instant> {
        self.watches.iter().map(Watch::due).min()
    }

    /// Does what there is to do now.
    pub fn turn(&mut self) {
        self.watches.iter_mut().for_each(Watch::turn);
        let ended = |server: &mut Server| {
            wait::one(Slot::readable(server.child.as_fd()), Until::Now).unwrap_or(false)
        };
        if let Some(server) = self.server.take_if(ended) {
            let how = match server.child.wait() {
                Ok(Ended::Killed(signal)) => format!("was killed by signal {signal}"),
                Ok(Ended::Exited(_)) => "has ended".into(),
                Err(error) => format!("is lost: {error}"),
            };
            log::error!(
                "published ports serve no clients of this host any more, and the guest's questions about names are not \
                 answered: the process for them {how}"
            );
        }
    }
}

impl Drop for NetworkService {
    fn drop(&mut self) {
        let Some(Server { child, stop }) = self.server.take() else {
            return;
        };
        drop(stop);
        let until = Until::after(PATIENCE);
        if !wait::one(Slot::readable(child.as_fd()), until).unwrap_or(false) {
            let _ = child.signal(Signal::KILL);
        }
        let _ = child.wait();
    }
}

impl Server {
    fn fork(proxies: Vec<Proxy>) -> io::Result<Self> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        match process::fork(0, None)? {
            Fork::Parent(child) => Ok(Self { child, stop }),
            Fork::Child(lifeline) => {
                // What is not closed now is another's.
                std::mem::forget(stop);
                serve(proxies, stopped, &lifeline);
            }
        }
    }
}

/// The process's life.
fn serve(mut proxies: Vec<Proxy>, stop: OwnedFd, lifeline: &Lifeline) -> ! {
    let mut serve = || -> io::Result<()> {
        // So that none of its sockets gets their numbers.
        dup2_stdin(&stop)?;
        dup2_stdout(&stop)?;
        // Who takes it over must not read what is typed to others.
        only_write_to_terminals()?;
        let own = [
            stop.as_fd(),
            lifeline.as_fd(),
            rustix::stdio::stdin(),
            rustix::stdio::stdout(),
        ];
        let all: Vec<BorrowedFd<'_>> = proxies
            .iter()
            .flat_map(Proxy::descriptors)
            .chain(own)
            .collect();
        // SAFETY: this process never returns.
        unsafe { descriptors::close_all_but(&all) };
        let _ = rustix::thread::set_name(c"net-proxy");
        rights::become_stranger()?;
        // The change of its user has ended that.
        lifeline.hold()?;
        rights::hold_to_strangers_list()?;
        net::serve(&mut proxies, stop.as_fd())
    };
    let served = serve();
    if let Err(error) = &served {
        log::error!("clients of published ports are not served: {error}");
    }
    process::end(u8::from(served.is_err()));
}
