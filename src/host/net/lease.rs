//! Who has which network: a file for each interface that kvmlet has made, locked by its owner.
//!
//! The lock ends with the process, however that ends; so a file that can be locked is left over, and what it
//! names can be cleared.

use super::link::Route;
use super::{Error, link};
use crate::config::{PortMapping, Subnet};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where networks are taken from, in this order: the first range that no route of the host touches but those
/// to kvmlet's own interfaces.
const RANGES: [(Ipv4Addr, u8); 3] = [
    (Ipv4Addr::new(10, 107, 0, 0), 16),
    (Ipv4Addr::new(172, 30, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 107, 0), 24),
];
/// A network, two hosts, and a broadcast address.
const PREFIX: u8 = 30;
/// What the names of kvmlet's interfaces begin with.
pub(super) const TAP_PREFIX: &str = "kvmlet";

/// What is written in a lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub pid: u32,
    /// The network namespace, by its inode number.
    pub namespace: u64,
    pub tap: String,
    pub subnet: String,
    pub guest: Ipv4Addr,
    /// In the form of `-p`.
    pub published: Vec<String>,
}

impl Record {
    pub fn ports(&self) -> impl Iterator<Item = PortMapping> + '_ {
        self.published.iter().filter_map(|text| text.parse().ok())
    }
}

/// A lease that nobody holds, with what could be read of it.
pub(super) type Leftover = (PathBuf, Option<Record>);

/// The directory of leases, locked against other processes until this value is dropped.
pub(super) struct Leases {
    directory: PathBuf,
    _lock: File,
}

/// A lease that this process holds. Dropping it lets go of it, but leaves the file to be found.
pub(super) struct Lease {
    path: PathBuf,
    _lock: File,
    pub record: Record,
}

impl Leases {
    /// Makes the directory if it is not there, and waits for the lock.
    pub fn lock(runtime: &Path) -> Result<Self, Error> {
        let directory = runtime.join("net");
        let failed = |source| Error::State {
            path: directory.clone(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join("lock"))
            .map_err(failed)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }

    /// A file of this directory, for what else is to be remembered.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "lease") {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// All leases: those whose owners live, and those left over.
    pub fn all(&self) -> Result<(Vec<Record>, Vec<Leftover>), Error> {
        let failed = |source| Error::State {
            path: self.directory.clone(),
            source,
        };
        let (mut live, mut stale) = (Vec::new(), Vec::new());
        for path in self.files().map_err(failed)? {
            let Ok(mut file) = File::open(&path) else {
                continue;
            };
            let mut text = String::new();
            let record = file
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| serde_json::from_str(&text).ok());
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => stale.push((path, record)),
                Err(Errno::WOULDBLOCK) => live.extend(record),
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok((live, stale))
    }

    /// Takes a network for a tap: the given one, or one that is free.
    pub fn take(
        &self,
        tap: &str,
        wanted: Option<Subnet>,
        publish: &[PortMapping],
    ) -> Result<(Lease, Subnet), Error> {
        let (live, _) = self.all()?;
        let taken = live.iter().filter_map(|record| record.subnet.parse().ok());
        let taken: Vec<Subnet> = taken.collect();
        let routes = link::routes().map_err(|source| Error::Routes { source })?;
        let subnet = choose(wanted, &taken, &routes)?;
        let record = Record {
            pid: std::process::id(),
            namespace: namespace(),
            tap: tap.into(),
            subnet: subnet.to_string(),
            guest: subnet.guest(),
            published: publish.iter().map(PortMapping::to_string).collect(),
        };
        let path = self.file(&format!("{}.lease", subnet.address()));
        let failed = |source| Error::State {
            path: path.clone(),
            source,
        };
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(failed)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| failed(e.into()))?;
        let text = serde_json::to_string(&record).map_err(|error| failed(error.into()))?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        let lease = Lease {
            path,
            _lock: file,
            record,
        };
        Ok((lease, subnet))
    }

    /// Gives a lease back.
    pub fn release(&self, lease: &Lease) {
        self.remove(&lease.path);
    }

    /// Removes a lease that nobody holds.
    pub fn remove(&self, path: &Path) {
        if let Err(error) = fs::remove_file(path) {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// The network namespace of this thread; 0 where that cannot be known.
pub(super) fn namespace() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |data| data.ino())
}

fn choose(wanted: Option<Subnet>, taken: &[Subnet], routes: &[Route]) -> Result<Subnet, Error> {
    let route = |subnet: Subnet| {
        let overlaps = |route: &&Route| !route.is_default() && route.overlaps(subnet);
        routes.iter().find(overlaps)
    };
    let is_taken = |subnet: Subnet| taken.iter().any(|other| overlap(*other, subnet));
    if let Some(subnet) = wanted {
        return match route(subnet) {
            Some(route) => Err(Error::SubnetRouted {
                subnet,
                route: route.to_string(),
            }),
            None if is_taken(subnet) => Err(Error::SubnetTaken { subnet }),
            None => Ok(subnet),
        };
    }
    let mut in_the_way = None;
    for (start, prefix) in RANGES {
        let range = Subnet::new(start, prefix);
        let foreign = routes.iter().find(|route| {
            !route.is_default()
                && !route.interface.starts_with(TAP_PREFIX)
                && range.is_some_and(|range| route.overlaps(range))
        });
        if let Some(route) = foreign {
            in_the_way = Some(route.to_string());
            continue;
        }
        let step = 1 << (32 - PREFIX);
        let end = start.to_bits() | (u32::MAX >> prefix);
        let mut candidates = (start.to_bits()..=end)
            .step_by(step)
            .filter_map(|address| Subnet::new(Ipv4Addr::from_bits(address), PREFIX));
        if let Some(free) = candidates.find(|subnet| !is_taken(*subnet) && route(*subnet).is_none())
        {
            return Ok(free);
        }
    }
    Err(Error::NoSubnet { route: in_the_way })
}

fn overlap(a: Subnet, b: Subnet) -> bool {
    (a.address().to_bits() ^ b.address().to_bits()) & a.mask() & b.mask() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str, interface: &str) -> Route {
        let subnet: Subnet = text.parse().unwrap();
        Route {
            interface: interface.into(),
            destination: subnet.address().to_bits(),
            mask: subnet.mask(),
        }
    }

    #[test]
    fn networks_avoid_leases_and_routes() {
        let choice = |taken: &[&str], routes: &[Route]| {
            let taken: Vec<Subnet> = taken.iter().map(|text| text.parse().unwrap()).collect();
            choose(None, &taken, routes).map(|subnet| subnet.to_string())
        };
        assert_eq!(choice(&[], &[]).unwrap(), "10.107.0.0/30");
        assert_eq!(choice(&["10.107.0.0/30"], &[]).unwrap(), "10.107.0.4/30");
        assert_eq!(choice(&["10.107.0.0/29"], &[]).unwrap(), "10.107.0.8/30");
        let ours = route("10.107.0.0/30", "kvmlet0");
        assert_eq!(choice(&[], &[ours]).unwrap(), "10.107.0.4/30");
        let vpn = route("10.0.0.0/8", "tun0");
        assert_eq!(
            choice(&[], std::slice::from_ref(&vpn)).unwrap(),
            "172.30.0.0/30"
        );
        let all = [
            vpn,
            route("172.16.0.0/12", "a"),
            route("192.168.0.0/16", "b"),
        ];
        let error = choice(&[], &all).unwrap_err().to_string();
        assert!(error.contains("192.168.0.0/16 on b"), "{error}");
        // What is asked for may be anywhere but in the way.
        let asked = Some("10.107.9.0/24".parse().unwrap());
        assert!(choose(asked, &[], &all[1..]).is_ok());
        assert!(choose(asked, &[], &all).is_err());
        assert!(choose(asked, &["10.107.9.4/30".parse().unwrap()], &[]).is_err());
    }

    #[test]
    fn a_lease_is_stale_when_its_owner_is_gone() {
        let runtime = tempfile::tempdir().unwrap();
        let leases = Leases::lock(runtime.path()).unwrap();
        let (first, one) = leases.take("kvmlet0", None, &[]).unwrap();
        let (_second, other) = leases.take("kvmlet1", None, &[]).unwrap();
        assert_ne!(one, other);
        let (live, stale) = leases.all().unwrap();
        assert_eq!((live.len(), stale.len()), (2, 0));
        // The lock goes, the file stays: as after a kill.
        drop(first);
        let (live, stale) = leases.all().unwrap();
        assert_eq!((live.len(), stale.len()), (1, 1));
        assert_eq!(stale[0].1.as_ref().unwrap().tap, "kvmlet0");
    }
}
