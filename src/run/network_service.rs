//! What networks need while a VM runs. Their rules are looked after in the supervisor's own loop. Strangers, that is
//! clients of published ports and whoever answers for names, are served by a process beside it: they have never been
//! where the rights of a VM's end are. Where passt carries a network, another one keeps the guest to its rules.

use crate::Error;
use crate::console::only_write_to_terminals;
use kvmlet_host::net::passt::{self, Relay};
use kvmlet_host::net::{self, Network, Proxy, Watch};
use kvmlet_host::walls::rights;
use kvmlet_sys::process::{self, Child, Ended, Fork, Lifeline};
use kvmlet_sys::wait::{self, Slot, Until};
use kvmlet_sys::{code, descriptors};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use rustix::stdio::{dup2_stdin, dup2_stdout};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long the process has to end by itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service of all networks of a VM. Dropping it ends it; that comes before the networks' own end.
pub(crate) struct NetworkService {
    watches: Vec<Watch>,
    servers: Vec<Server>,
    // They end with their relays, which are a server's.
    passts: Vec<passt::Process>,
}

/// A process that serves.
struct Server {
    child: Child,
    /// Nothing is ever written to it: its end is the process's.
    stop: OwnedFd,
    /// What is missing when it has ended too soon.
    loss: &'static str,
}

impl NetworkService {
    /// For networks that were set up. This process has one thread.
    pub fn start(networks: &mut [Network]) -> Result<Self, Error> {
        let mut proxies = Vec::new();
        for network in networks.iter_mut() {
            proxies.extend(network.proxy()?);
        }
        let (mut relays, mut passts) = (Vec::new(), Vec::new());
        for network in networks.iter_mut() {
            let (relay, process) = network.relay()?.unzip();
            relays.extend(relay);
            passts.extend(process);
        }
        let mut servers = Vec::new();
        for work in [Work::Proxies(proxies), Work::Relays(relays)] {
            servers.extend(Server::fork(work)?);
        }
        let watches = networks.iter_mut().filter_map(Network::watch).collect();
        Ok(Self {
            watches,
            servers,
            passts,
        })
    }

    /// What is waited for on its behalf.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        let news = self.watches.iter().flat_map(Watch::fds);
        let servers = self.servers.iter().map(|server| server.child.as_fd());
        let passts = self.passts.iter().map(AsFd::as_fd);
        news.chain(servers).chain(passts).map(Slot::readable)
    }

    /// Ends it, but for what has looked after rules, which looks no more.
    pub fn end(mut self) -> Vec<Watch> {
        std::mem::take(&mut self.watches)
    }

    /// When there is something to do without any of that.
    pub fn due(&self) -> Option<Instant> {
        self.watches.iter().map(Watch::due).min()
    }

    /// Does what there is to do now, and says what is missing from now on.
    #[must_use]
    pub fn turn(&mut self) -> Vec<String> {
        let mut lost = Vec::new();
        self.watches.iter_mut().for_each(Watch::turn);
        let ended = |fd: BorrowedFd<'_>| wait::one(Slot::readable(fd), Until::Now).unwrap_or(false);
        for server in self
            .servers
            .extract_if(.., |server| ended(server.child.as_fd()))
        {
            let how = match server.child.wait() {
                Ok(Ended::Killed(signal)) => format!("was killed by signal {signal}"),
                Ok(Ended::Exited(_)) => "has ended".into(),
                Err(error) => format!("is lost: {error}"),
            };
            lost.push(format!("{}: the process for them {how}", server.loss));
        }
        for passt in self.passts.extract_if(.., |passt| ended(passt.as_fd())) {
            let how = passt.ended();
            lost.push(format!("the guest has no network any more: passt {how}"));
        }
        lost
    }
}

impl NetworkService {
    /// Leaves it to the process that this one was forked from.
    pub fn abandon(mut self) {
        self.servers.drain(..).for_each(drop);
    }
}

impl Drop for NetworkService {
    fn drop(&mut self) {
        self.servers.drain(..).for_each(Server::end);
    }
}

impl Server {
    /// Nothing where there is nothing to do.
    fn fork(work: Work) -> Result<Option<Self>, Error> {
        let (what, loss) = match &work {
            Work::Proxies(proxies) if !proxies.is_empty() => (
                "a process for clients of published ports",
                "published ports serve no clients of this host any more, and the guest's questions about names are not \
                 answered",
            ),
            Work::Relays(relays) if !relays.is_empty() => (
                "a process for the guest's frames",
                "the guest's frames go nowhere any more",
            ),
            _ => return Ok(None),
        };
        let fork = || -> io::Result<Self> {
            let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
            match process::fork(0, None)? {
                Fork::Parent(child) => Ok(Self { child, stop, loss }),
                Fork::Child(lifeline) => {
                    // What is not closed now is another's.
                    std::mem::forget(stop);
                    serve(work, stopped, &lifeline);
                }
            }
        };
        let server = fork().map_err(|source| Error::Host { what, source })?;
        Ok(Some(server))
    }

    fn end(self) {
        let Self { child, stop, .. } = self;
        drop(stop);
        let until = Until::after(PATIENCE);
        if !wait::one(Slot::readable(child.as_fd()), until).unwrap_or(false) {
            let _ = child.signal(Signal::KILL);
        }
        let _ = child.wait();
    }
}

/// What a process does.
enum Work {
    /// Serving strangers.
    Proxies(Vec<Proxy>),
    /// Carrying frames between a guest and passt.
    Relays(Vec<Relay>),
}

impl Work {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Proxies(proxies) => proxies.iter().flat_map(Proxy::descriptors).collect(),
            Self::Relays(relays) => relays.iter().flat_map(Relay::descriptors).collect(),
        }
    }

    fn name(&self) -> &'static CStr {
        match self {
            Self::Proxies(_) => c"net-proxy",
            Self::Relays(_) => c"net-relay",
        }
    }

    /// Gives up what it does not take.
    fn hold_to_list(&self) -> io::Result<()> {
        match self {
            Self::Proxies(_) => rights::hold_to_strangers_list(),
            Self::Relays(_) => rights::hold_to_relays_list(),
        }
    }

    fn go_on(self, stop: BorrowedFd<'_>) -> io::Result<()> {
        match self {
            Self::Proxies(mut proxies) => net::serve(&mut proxies, stop),
            Self::Relays(relays) => passt::carry(relays, stop),
        }
    }
}

/// The process's life.
fn serve(work: Work, stop: OwnedFd, lifeline: &Lifeline) -> ! {
    let serve = || -> io::Result<()> {
        // So that none of its sockets gets their numbers.
        dup2_stdin(&stop)?;
        dup2_stdout(&stop)?;
        // Who takes it over must not read what is typed to others.
        only_write_to_terminals()?;
        let mut kept = work.descriptors();
        kept.extend([
            stop.as_fd(),
            lifeline.as_fd(),
            rustix::stdio::stdin(),
            rustix::stdio::stdout(),
        ]);
        // SAFETY: this process never returns.
        unsafe { descriptors::close_all_but(&kept) };
        drop(kept);
        let _ = rustix::thread::set_name(work.name());
        rights::become_stranger()?;
        // The change of its user has ended that.
        lifeline.hold()?;
        // What the supervisor has run so far, this process does not.
        code::leave_to_page_cache();
        work.hold_to_list()?;
        work.go_on(stop.as_fd())
    };
    let served = serve();
    if let Err(error) = &served {
        log::error!("the guest's network is not served: {error}");
    }
    process::end(u8::from(served.is_err()));
}
