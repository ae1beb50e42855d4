//! What can go wrong with interfaces, and what a person can do about it.

use super::addresses;
use super::passt;
use super::record::Record;
use crate::config::{Advice, HostPort, PortMapping, Setting, Subnet, advice};
use crate::shares::descriptors::TooFew;
use crate::state::claims;
use kvmlet_sys::interrupt::Interrupted;
use std::net::IpAddr;
use std::{fmt, io};

/// Why a guest's network cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `/dev/net/tun` cannot be opened.
    #[error("cannot open /dev/net/tun, which makes network interfaces")]
    Tun {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No interface has the name.
    #[error("there is no network interface `{name}`")]
    TapMissing {
        /// What the user wrote.
        name: String,
    },
    /// It is another kind of interface.
    #[error("the network interface `{name}` is not a tap")]
    NotATap {
        /// What the user wrote.
        name: String,
    },
    /// Somebody has it open.
    #[error("the tap `{name}` is in use by another process")]
    TapBusy {
        /// What the user wrote.
        name: String,
    },
    /// It belongs to somebody else.
    #[error("no permission to use the tap `{name}`")]
    TapForbidden {
        /// What the user wrote.
        name: String,
    },
    /// It was made for one queue.
    #[error("the tap `{name}` has one queue, but {queues} are asked for")]
    TapSingleQueue {
        /// What the user wrote.
        name: String,
        /// The number asked for.
        queues: usize,
    },
    /// Anything else about a tap.
    #[error("cannot use the tap `{name}`")]
    Tap {
        /// Its name, or what it was to be.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A descriptor that came with the configuration cannot be an interface.
    #[error("the descriptor that a network interface was given {0}")]
    TapGiven(&'static str, #[source] Option<io::Error>),
    /// CAP_NET_ADMIN is missing.
    #[error("no permission to {to}: that takes the capability CAP_NET_ADMIN")]
    Capability {
        /// What was tried.
        to: &'static str,
    },
    /// An interface that cannot be set up.
    #[error("cannot {what} of the network interface `{name}`")]
    Link {
        /// Its name.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host's routes are unknown.
    #[error("cannot read the host's routes")]
    Routes {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// All ranges of private addresses are in use.
    #[error("no private network is free for the guest{}", match .route {
        Some(route) => format!(": the host routes {route}"),
        None => String::new(),
    })]
    NoSubnet {
        /// A route that is in the way.
        route: Option<String>,
    },
    /// The network that was asked for is another guest's.
    #[error("the network {subnet} overlaps with that of another guest")]
    SubnetTaken {
        /// What the user wrote.
        subnet: Subnet,
        /// The other guest's process.
        by: u32,
    },
    /// A network that is not kvmlet's to give to whoever may run it.
    #[error("the network {subnet} is not one of those that everybody may take")]
    SubnetOfOthers {
        /// What the user wrote.
        subnet: Subnet,
    },
    /// The network that was asked for is elsewhere.
    #[error("the network {subnet} overlaps with what the host routes to: {route}")]
    SubnetRouted {
        /// What the user wrote.
        subnet: Subnet,
        /// The route.
        route: String,
        /// It goes by an interface that an ended guest has left, which the kernel is about to remove.
        is_left: bool,
    },
    /// kvmlet's own directory cannot be used.
    #[error(transparent)]
    State(#[from] claims::Error),
    /// A signal that ends this process has come.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// There is no place to note what is set up.
    #[error("what an interface of kvmlet's own takes of this host cannot be noted")]
    NoNotes,
    /// This process may not open what clients take.
    #[error("an interface of kvmlet's own cannot be served")]
    Descriptors(#[from] TooFew),
    /// A port that is to be published is somebody else's.
    #[error("cannot publish {mapping}: {} that port", match .holder {
        Some(holder) => format!("{holder} has"),
        None => "another process has".into(),
    })]
    PortTaken {
        /// What the user wrote.
        mapping: PortMapping,
        /// Who has it, if that can be told.
        holder: Option<Holder>,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A port is to be published at an address that is not the host's.
    #[error("cannot publish {mapping}: this host does not have the address {address}")]
    NoSuchAddress {
        /// What the user wrote.
        mapping: PortMapping,
        /// The address in it.
        address: IpAddr,
        /// Those that the host has.
        there: Vec<IpAddr>,
    },
    /// There are no sockets for the guest's questions about names.
    #[error("cannot answer the guest's questions about names")]
    NameService {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A published port is not available.
    #[error("cannot publish {mapping}")]
    Publish {
        /// What the user wrote.
        mapping: PortMapping,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There is no thread for published ports.
    #[error("cannot serve published ports")]
    Proxy {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// passt, which is to carry an interface.
    #[error(transparent)]
    Passt(#[from] passt::Error),
    /// Several rights are missing.
    #[error("an interface of kvmlet's own cannot be made: {}", all(.missing))]
    Lacking {
        /// An error for each.
        missing: Vec<Error>,
    },
    /// There is nothing that filters the guest's packets.
    #[error("the rules for a guest's packets cannot be made (nf_tables)")]
    Rules {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Several errors in one line, each with its cause.
fn all(errors: &[Error]) -> String {
    let told = errors
        .iter()
        .map(|error| match std::error::Error::source(error) {
            Some(cause) => format!("{error} ({cause})"),
            None => error.to_string(),
        });
    told.collect::<Vec<_>>().join("; ")
}

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Another VM, published by this process.
    Vm(u32),
    /// A process, with its name.
    Process(u32, String),
}

impl Holder {
    /// Who has a port that is to be published, as far as this user may know.
    pub(super) fn of<'a>(
        mapping: &PortMapping,
        mut neighbours: impl Iterator<Item = &'a Record>,
    ) -> Option<Self> {
        let (HostPort::Fixed(port) | HostPort::FirstFree(port, _)) = mapping.host else {
            return None;
        };
        let wanted = PortMapping {
            host: HostPort::Fixed(port),
            ..*mapping
        };
        let collides = |record: &&Record| record.ports().any(|port| port.collides_with(&wanted));
        match neighbours.find(collides) {
            Some(record) => Some(Self::Vm(record.pid)),
            None => {
                addresses::listener(&wanted, port.get()).map(|(pid, name)| Self::Process(pid, name))
            }
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm(pid) => write!(f, "the VM of process {pid}"),
            Self::Process(pid, name) => write!(f, "process {pid} ({name})"),
        }
    }
}

fn taken_help(holder: Option<&Holder>, mapping: &PortMapping) -> Advice {
    let guest = (Setting::Publish, mapping.guest.to_string());
    match holder {
        Some(_) => advice!(
            "choose another port, or have the host choose one: {}",
            guest
        ),
        None => advice!(
            "`sudo ss -lnp 'sport = {}'` shows which; choose another port, or have the host choose one: {}",
            mapping.host.to_string(),
            guest
        ),
    }
}

/// A port below `first` is not everybody's.
fn low_help(mapping: &PortMapping, first: u16) -> Advice {
    let (HostPort::Fixed(port) | HostPort::FirstFree(port, _)) = mapping.host else {
        return "whoever guards this host forbids it".into();
    };
    let higher = PortMapping {
        host: HostPort::Fixed(port.saturating_add(8000)),
        ..*mapping
    };
    advice!(
        "ports below {} are root's here: choose a higher one ({}), or have root lower that bound: `sudo sysctl \
         net.ipv4.ip_unprivileged_port_start={}`",
        first.to_string(),
        (Setting::Publish, higher.to_string()),
        port.to_string()
    )
}

/// How to do without rights over the host's network, or to have them.
fn grant() -> Advice {
    advice!(
        "run as root, or `sudo setcap cap_net_admin+ep` the kvmlet binary, or have a tap made with \
         `sudo ip tuntap add dev tap0 mode tap user $(id -un)` and take it: {}",
        (Setting::NetTap, "tap0")
    )
}

/// The same behind the way that takes no rights at all.
fn or_passt(grant: Option<Advice>) -> Option<Advice> {
    let passt =
        Advice::from("have passt carry it, which takes no right: `sudo apt-get install passt`");
    Advice::joined([passt].into_iter().chain(grant), "; or ")
}

impl Error {
    /// What a person can do about it, if something is known to help.
    pub fn help(&self) -> Option<Advice> {
        let kind = |source: &io::Error| source.kind();
        Some(match self {
            Error::Tun { source } if kind(source) == io::ErrorKind::PermissionDenied => {
                "make it accessible with `sudo chmod 666 /dev/net/tun`; what may be done with it then is up to \
                 the interface's owner"
                    .into()
            }
            Error::Tun { .. } => "load the module with `sudo modprobe tun`".into(),
            Error::TapMissing { name } => advice!(
                "make it with `sudo ip tuntap add dev {} mode tap user $(id -un)`, or leave out {} and \
                 kvmlet makes one",
                name.clone(),
                Setting::NetTap
            ),
            Error::NotATap { name } => advice!(
                "a tap is made with `ip tuntap add dev NAME mode tap`; to reach the network of `{}` join the \
                 tap with it in a bridge, or leave out {}",
                name.clone(),
                Setting::NetTap
            ),
            Error::TapBusy { .. } => {
                "each VM needs a tap of its own; `fuser -v /dev/net/tun` shows who has taps open".into()
            }
            Error::TapForbidden { name } => format!(
                "give it to this user: `sudo ip tuntap add dev {name} mode tap user $(id -un)`, after `sudo ip \
                 link del {name}`"
            )
            .into(),
            Error::TapSingleQueue { name, .. } => advice!(
                "leave out {}|make the tap with several: `sudo ip link del {}; sudo ip tuntap add \
                 dev {} mode tap multi_queue user $(id -un)`",
                Setting::NetQueues,
                name.clone(),
                name.clone()
            ),
            Error::Capability { .. } => return or_passt(Some(grant())),
            Error::Link { source, .. } if kind(source) == io::ErrorKind::PermissionDenied => grant(),
            Error::SubnetOfOthers { .. } => {
                "kvmlet has its rights from its file, so it takes networks in 10.107.0.0/16, 172.30.0.0/16 and \
                 192.168.107.0/24 only; have root choose another one"
                    .into()
            }
            Error::NoSubnet { .. } | Error::SubnetTaken { .. } | Error::SubnetRouted { .. } => {
                advice!("name a network that is free: {}", (Setting::NetSubnet, "10.1.2.0/30"))
            }
            Error::Passt(error) => return error.help(),
            Error::State(error) => return error.help().map(Into::into),
            Error::NoNotes => advice!("make the runtime directory usable|take a tap: {}", (Setting::NetTap, "NAME")),
            Error::Descriptors(_) => {
                "let this process have more: `ulimit -n 1024` before kvmlet, or LimitNOFILE=1024 in its unit".into()
            }
            Error::PortTaken {
                holder, mapping, ..
            } => taken_help(holder.as_ref(), mapping),
            Error::NoSuchAddress { there, .. } if !there.is_empty() => {
                let there: Vec<String> = there.iter().map(IpAddr::to_string).collect();
                format!(
                    "it has {}; without an address the port is published at all of them",
                    there.join(", ")
                )
                .into()
            }
            Error::Publish { source, mapping } => match kind(source) {
                io::ErrorKind::PermissionDenied => low_help(mapping, addresses::first_for_all()),
                _ => return None,
            },
            Error::Lacking { missing } => {
                let help = |error: &Error| match error {
                    Error::Capability { .. } => Some(grant()),
                    error => error.help(),
                };
                return or_passt(Advice::joined(missing.iter().filter_map(help), "; and "));
            }
            Error::Rules { source } if kind(source) == io::ErrorKind::InvalidInput => {
                advice!(
                    "this kernel knows that rule otherwise, or not at all: report it with `uname -r` as a bug of \
                     kvmlet; until it is mended, make a tap and take it: {}",
                    (Setting::NetTap, "NAME")
                )
            }
            Error::Rules { .. } => advice!(
                "load the modules with `sudo modprobe -a nf_tables nft_fib_ipv4 nft_masq nft_nat nft_ct`; a kernel \
                 without them gives no interface of kvmlet's own, as its guest would reach all of this host: make a \
                 tap and take it: {}",
                (Setting::NetTap, "NAME")
            ),
            _ => return None,
        })
    }
}
