//! What a network serves by itself: published ports for clients that no DNAT rule serves, and the guest's names.
//!
//! One event loop does it all, for as long as the network is there: that of a process or of a thread which does nothing
//! else. It serves strangers, so all that they can make it hold is bounded: connections, clients, queries, and for TCP no
//! bytes at all (what one side has sent stays in the kernel until the other takes it). Who takes too much makes room for
//! others ([`seats`]).
//!
//! It has no capabilities, and a [list of system calls](crate::walls::rights::serve_strangers): `ppoll`, `epoll_wait` or
//! `epoll_pwait`, `epoll_ctl`, `accept4`, `socket`, `bind`, `connect`, `getsockname`, `getpeername`, `getsockopt`, `setsockopt`,
//! `recvfrom`, `sendto`, `recvmsg`, `sendmsg`, `read`, `write`, `shutdown`, `close`, `getrandom`, `ioctl`
//! (FIONBIO, and SIOCGIFINDEX for name servers of an interface); for the host's list of name servers `openat` and
//! `statx`; and those of the allocator, of clocks, of the log and of a thread's end. Sockets are of the families AF_INET,
//! AF_INET6, AF_UNIX (by libc, for the name of an interface) and, once at the start, AF_NETLINK (NETLINK_SOCK_DIAG, which
//! tells who has a socket of this host).

mod bounds;
mod connection;
mod datagram;
mod dns;
mod guests;
mod line;
mod name_servers;
mod seats;
mod settling;
mod source;
mod target;
mod tcp;
mod udp;

pub(super) use bounds::Seats;
pub(super) use name_servers::NameServers;

use bounds::Rules;
use dns::Forwarder;
use kvmlet_sys::wait::{self, Slot};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use source::Users;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;
use target::Target;
use tcp::TcpRelay;
use udp::UdpRelay;

/// Events that are heeded in one turn.
const EVENTS: usize = 64;
/// What is read at a time, in bytes: the largest datagram.
const BUFFER: usize = 64 << 10;

/// Sockets that listen for others. None of them blocks.
pub(super) struct Offer {
    /// How much is served at a time.
    pub seats: Seats,
    /// With the guest's address that each leads to.
    pub tcp: Vec<(TcpListener, SocketAddr)>,
    /// As above.
    pub udp: Vec<(UdpSocket, SocketAddr)>,
    pub dns: Option<DnsOffer>,
}

/// Where the guest asks for names, and whom the host asks.
pub(super) struct DnsOffer {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
    /// Nobody else is answered.
    pub guest: Ipv4Addr,
    pub servers: NameServers,
}

/// Whose event it is. The number is that of a listener, connection, client or query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    PublishedListener,
    Published,
    DnsListener,
    DnsConnection,
    UdpSocket,
    UdpClient,
    DnsSocket,
    DnsQuery,
}

const KINDS: [Kind; 8] = [
    Kind::PublishedListener,
    Kind::Published,
    Kind::DnsListener,
    Kind::DnsConnection,
    Kind::UdpSocket,
    Kind::UdpClient,
    Kind::DnsSocket,
    Kind::DnsQuery,
];
/// Where the kind stands in what epoll gives back.
const KIND_SHIFT: u32 = 56;

/// What all parts of the proxy use.
struct Context {
    epoll: OwnedFd,
    /// When the events of this round came.
    now: Instant,
    buffer: Vec<u8>,
    users: Users,
    servers: Option<NameServers>,
}

impl Context {
    /// Has the events of a descriptor reported until it is closed. They are edges: an event is told once, so who
    /// gets one goes on until the descriptor would block.
    fn watch(&self, fd: impl AsFd, kind: Kind, number: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64((kind as u64) << KIND_SHIFT | number);
        Ok(epoll::add(&self.epoll, fd, data, flags)?)
    }
}

/// What serves strangers, and a guest's questions, for one network. It takes its turns in the loop of whoever has it:
/// when its descriptor can be read, and when something is [due](Self::due). Dropping it ends its connections.
pub struct Proxy {
    context: Context,
    published: TcpRelay,
    udp: UdpRelay,
    dns: Option<Forwarder>,
    dns_tcp: TcpRelay,
}

/// Readable when there is something to do.
impl AsFd for Proxy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.context.epoll.as_fd()
    }
}

impl Proxy {
    pub(super) fn new(offer: Offer) -> io::Result<Self> {
        let mut context = Context {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            now: Instant::now(),
            buffer: Vec::new(),
            users: Users::new(),
            servers: None,
        };
        let seats = offer.seats;
        let to_guest = |(listener, target)| (listener, Target::Guest(target));
        let published = offer.tcp.into_iter().map(to_guest).collect();
        let kinds = (Kind::PublishedListener, Kind::Published);
        let published = TcpRelay::new(&context, kinds, Rules::published(seats), published)?;
        let udp = UdpRelay::new(&context, seats.udp, offer.udp)?;
        let mut dns = None;
        let mut listeners = Vec::new();
        if let Some(offer) = offer.dns {
            context.servers = Some(offer.servers);
            dns = Some(Forwarder::new(&context, seats.dns, offer.udp, offer.guest)?);
            listeners.push((offer.tcp, Target::NameServers { of: offer.guest }));
        }
        let kinds = (Kind::DnsListener, Kind::DnsConnection);
        let dns_tcp = TcpRelay::new(&context, kinds, Rules::dns(seats), listeners)?;
        Ok(Self {
            context,
            published,
            udp,
            dns,
            dns_tcp,
        })
    }

    /// All that it has open.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let relays = [&self.published, &self.dns_tcp];
        let listeners = relays.into_iter().flat_map(TcpRelay::descriptors);
        let dns = self.dns.iter().map(Forwarder::descriptor);
        let own = [self.as_fd()]
            .into_iter()
            .chain(self.context.users.descriptor());
        own.chain(listeners)
            .chain(self.udp.descriptors())
            .chain(dns)
            .collect()
    }

    /// When there is something to do without an event.
    pub fn due(&self) -> Option<Instant> {
        let dues = [
            self.published.due(),
            self.dns_tcp.due(),
            self.udp.due(),
            self.dns.as_ref().and_then(Forwarder::due),
        ];
        dues.into_iter().flatten().min()
    }

    /// Does what there is to do now, a bounded part of it: what is left is due at once.
    ///
    /// # Errors
    /// When the kernel tells of no events any more.
    pub fn turn(&mut self) -> io::Result<()> {
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let now = Timespec::default();
        let events = match epoll::wait(&self.context.epoll, &mut events[..], Some(&now)) {
            Ok((events, _)) => &*events,
            Err(Errno::INTR) => &[],
            Err(error) => return Err(error.into()),
        };
        self.context.now = Instant::now();
        // Made when somebody comes.
        self.context.buffer.resize(BUFFER, 0);
        for event in events {
            let data = event.data.u64();
            let number = data & ((1 << KIND_SHIFT) - 1);
            if let Some(kind) = KINDS.get((data >> KIND_SHIFT) as usize) {
                self.serve(*kind, number);
            }
        }
        let Self {
            context,
            published,
            udp,
            dns,
            dns_tcp,
        } = self;
        published.go_on(context);
        dns_tcp.go_on(context);
        udp.go_on(context);
        if let Some(dns) = dns {
            dns.go_on(context);
        }
        Ok(())
    }

    fn serve(&mut self, kind: Kind, number: u64) {
        let context = &mut self.context;
        match kind {
            Kind::PublishedListener => self.published.accept_later(number as usize),
            Kind::Published => self.published.serve(number, context),
            Kind::DnsListener => self.dns_tcp.accept_later(number as usize),
            Kind::DnsConnection => self.dns_tcp.serve(number, context),
            Kind::UdpSocket => self.udp.forward(number as usize, context),
            Kind::UdpClient => self.udp.answer(number, context),
            Kind::DnsSocket | Kind::DnsQuery => {
                if let Some(dns) = &mut self.dns {
                    match kind {
                        Kind::DnsSocket => dns.ask(context),
                        _ => dns.answer(number, context),
                    }
                }
            }
        }
    }
}

/// Gives the proxies their turns until `stop` can be read, or nobody is left who writes to it.
///
/// # Errors
/// When the kernel tells of no events any more.
pub fn serve(proxies: &mut [Proxy], stop: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        let events = proxies.iter().map(|proxy| Slot::readable(proxy.as_fd()));
        let mut slots: Vec<Slot<'_>> = [Slot::readable(stop)].into_iter().chain(events).collect();
        let due = proxies.iter().filter_map(Proxy::due).min();
        wait::any_of(&mut slots, due.into())?;
        if slots[0].is_ready() {
            return Ok(());
        }
        proxies.iter_mut().try_for_each(Proxy::turn)?;
    }
}
