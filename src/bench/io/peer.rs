//! Other VMMs that run the same guests: each by its own words for a disk and an interface.

mod cloud_hypervisor;
mod firecracker;

use super::{Bench, DEADLINE, Work};
use crate::contestant::Presence;
use crate::error::Halt;
use crate::running::Running;
use crate::statistics::Ratio;
use serde::Serialize;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// A VMM that takes part where it is installed.
#[derive(Clone, Debug, Serialize)]
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    /// Is it there?
    pub presence: Presence,
    #[serde(skip)]
    dialect: Dialect,
}

/// What a peer did of one kind of work.
#[derive(Clone, Debug, Serialize)]
pub struct Rival {
    /// Its name, with what it was asked for.
    pub name: &'static str,
    /// Requests per second, in each round.
    pub per_second: Vec<f64>,
    /// Median of kvmlet's guest in terms of this one's.
    pub kvmlet_to_it: Option<Ratio>,
}

/// How one is asked.
#[derive(Clone, Copy, Debug)]
struct Dialect {
    probe: fn() -> Presence,
    /// The ways in which it can have a disk, each with the name that it has in the result.
    disks: &'static [&'static str],
    /// Can it go past the page cache?
    direct: bool,
    /// The name that it has in the result with an interface.
    frames: &'static str,
    /// What its guest finds its device by.
    cmdline: &'static str,
    /// The command, for a VM with 1 vCPU and 128 MiB and its serial port on standard output.
    command: fn(&Machine<'_>) -> io::Result<Vec<OsString>>,
}

/// What a VM is made of.
struct Machine<'a> {
    kernel: PathBuf,
    cmdline: String,
    device: Device<'a>,
    /// Which of the ways to have a disk.
    way: &'static str,
    /// Where a configuration can be written to.
    file: PathBuf,
}

/// What its guest works with.
#[derive(Clone, Copy)]
pub(super) enum Device<'a> {
    /// The file of a disk.
    Disk {
        /// Where it is.
        path: &'a Path,
        /// Past the page cache.
        direct: bool,
    },
    /// The name of a tap that nobody else has open.
    Tap(&'a str),
}

/// A peer in one of its ways.
#[derive(Clone, Copy)]
pub(super) struct Entrant<'a> {
    peer: &'a Peer,
    name: &'static str,
}

impl Peer {
    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        let peers = [
            ("firecracker", firecracker::DIALECT),
            ("cloud-hypervisor", cloud_hypervisor::DIALECT),
        ];
        let peer = |(name, dialect): (_, Dialect)| Self {
            name,
            presence: (dialect.probe)(),
            dialect,
        };
        peers.map(peer).into()
    }

    fn is_present(&self) -> bool {
        matches!(self.presence, Presence::Present { .. })
    }
}

impl<'a> Entrant<'a> {
    /// Who takes part with a disk.
    pub fn with_disk(peers: &'a [Peer], direct: bool) -> Vec<Self> {
        let able = |peer: &&Peer| peer.is_present() && (peer.dialect.direct || !direct);
        let of = |peer: &'a Peer| (peer.dialect.disks.iter()).map(move |&name| Self { peer, name });
        peers.iter().filter(able).flat_map(of).collect()
    }

    /// Who takes part with an interface.
    pub fn with_interface(peers: &'a [Peer]) -> Vec<Self> {
        let one = |peer: &'a Peer| Self {
            peer,
            name: peer.dialect.frames,
        };
        let present = peers.iter().filter(|peer| peer.is_present());
        present.map(one).collect()
    }

    /// What it is to do of that kind of work.
    pub fn rival(&self) -> Rival {
        Rival {
            name: self.name,
            per_second: Vec::new(),
            kvmlet_to_it: None,
        }
    }

    /// Starts it. It does not know how kvmlet's guests power off, and is killed when it is dropped.
    pub fn start(
        &self,
        bench: &Bench<'_>,
        guest: &str,
        device: Device<'_>,
        cmdline: &str,
    ) -> Result<Running, Halt> {
        let machine = Machine {
            kernel: bench.programs.guest(guest),
            cmdline: [cmdline, self.peer.dialect.cmdline].join(" "),
            device,
            way: self.name,
            file: bench.file("peer.json"),
        };
        let command = (self.peer.dialect.command)(&machine);
        let command = command.map_err(super::failed("the configuration cannot be written"))?;
        Running::start(&command, &bench.file("stderr"), DEADLINE)
    }

    /// The name that it has in the result.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl Work {
    /// What that rival did in one round.
    pub(super) fn note(&mut self, entrant: Entrant<'_>, per_second: f64) {
        let of = |rival: &&mut Rival| rival.name == entrant.name;
        if let Some(rival) = self.rivals.iter_mut().find(of) {
            rival.per_second.push(per_second);
        }
    }
}
