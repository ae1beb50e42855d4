//! The host's name servers, as they are now.

use std::ffi::CString;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where a host names its name servers (resolv.conf(5)).
const FILE: &str = "/etc/resolv.conf";
/// resolv.conf(5): more are ignored.
const MOST: usize = 3;
const PORT: u16 = 53;
/// How often the file is looked at, at most.
const LOOK: Duration = Duration::from_secs(1);
/// How long the server that has answered is asked first, rather than the first of the list.
const PREFERRED: Duration = Duration::from_secs(30);

/// Name servers to ask, in order: fixed ones, or those of a file, which is read again when it has changed.
pub(in crate::net) struct NameServers {
    file: Option<PathBuf>,
    /// The file as it was read; nothing if there was none.
    seen: Option<Version>,
    looked: Option<Instant>,
    servers: Vec<SocketAddr>,
    preferred: Option<(SocketAddr, Instant)>,
    said_none: bool,
}

/// What changes with a file's content: device, inode, size and time of change.
type Version = (u64, u64, u64, i64, i64);

impl NameServers {
    /// The given servers, or the host's if there are none.
    pub fn new(fixed: &[IpAddr]) -> Self {
        match fixed {
            [] => Self::of_file(FILE.into()),
            _ => {
                let servers = fixed.iter().map(|address| SocketAddr::new(*address, PORT));
                Self::with(None, servers.collect())
            }
        }
    }

    pub fn of_file(file: PathBuf) -> Self {
        let mut servers = Self::with(Some(file), Vec::new());
        servers.look();
        servers
    }

    fn with(file: Option<PathBuf>, servers: Vec<SocketAddr>) -> Self {
        Self {
            file,
            seen: None,
            looked: None,
            servers,
            preferred: None,
            said_none: false,
        }
    }

    /// The servers as they were last read.
    pub fn known(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Whom to ask, first to last. If that is nobody, it is said in the log once.
    pub fn in_order(&mut self, now: Instant) -> Vec<SocketAddr> {
        if self.looked.is_none_or(|at| now >= at + LOOK) {
            self.looked = Some(now);
            self.look();
        }
        if self.servers.is_empty() {
            if !std::mem::replace(&mut self.said_none, true) {
                log::warn!("the guest asks for names, and {FILE} has no name server to ask");
            }
            return Vec::new();
        }
        self.said_none = false;
        let preferred = self.preferred.filter(|(_, until)| now < *until);
        let first =
            preferred.and_then(|(server, _)| self.servers.iter().position(|s| *s == server));
        let mut servers = self.servers.clone();
        servers.rotate_left(first.unwrap_or(0));
        servers
    }

    /// Notes that a server has answered.
    pub fn has_answered(&mut self, server: SocketAddr, now: Instant) {
        let known = self.preferred.filter(|(_, until)| now < *until);
        if known.is_none_or(|(preferred, _)| preferred != server) {
            self.preferred = Some((server, now + PREFERRED));
        }
    }

    fn look(&mut self) {
        let Some(file) = &self.file else {
            return;
        };
        let version = version(file);
        if version.is_some() && version == self.seen {
            return;
        }
        self.seen = version;
        match fs::read_to_string(file) {
            Ok(text) => self.servers = parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.servers = Vec::new(),
            // What was read when it could be is better than nothing.
            Err(error) => log::debug!("{}: {error}", file.display()),
        }
    }
}

fn version(file: &Path) -> Option<Version> {
    let data = fs::metadata(file).ok()?;
    Some((
        data.dev(),
        data.ino(),
        data.size(),
        data.mtime(),
        data.mtime_nsec(),
    ))
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words
            .next()
            .filter(|word| *word == "nameserver")
            .and(words.next())?;
        parse_address(address)
    };
    text.lines().filter_map(server).take(MOST).collect()
}

/// An address; one of a link has the link's name behind it (RFC 4007, 11).
fn parse_address(text: &str) -> Option<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else {
        return Some(SocketAddr::new(text.parse().ok()?, PORT));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let index = zone.parse().ok().or_else(|| interface_index(zone))?;
    Some(SocketAddrV6::new(address, PORT, 0, index).into())
}

fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with a zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(servers: &[SocketAddr]) -> Vec<String> {
        servers.iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn the_first_three_servers_of_a_file_count() {
        let text = "# nameserver 1.2.3.4\nnameserver 127.0.0.53\nsearch example\nnameserver ::1 # x\nnameserver x\n \
                    nameserver\tfe80::1%lo\nnameserver 8.8.8.8";
        assert_eq!(
            texts(&parse(text)),
            ["127.0.0.53:53", "[::1]:53", "[fe80::1%1]:53"]
        );
        assert_eq!(parse("nameserver\noptions edns0\n"), []);
    }

    #[test]
    fn a_file_that_has_changed_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        let mut servers = NameServers::of_file(file.clone());
        let start = Instant::now();
        assert_eq!(servers.in_order(start), []);
        fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
        let now = start + LOOK;
        assert_eq!(texts(&servers.in_order(now)), ["192.0.2.1:53"]);
        // As NetworkManager and others do: a new file in its place.
        let new = directory.path().join("new");
        fs::write(&new, "nameserver 192.0.2.2\n").unwrap();
        fs::rename(&new, &file).unwrap();
        assert_eq!(
            texts(&servers.in_order(now)),
            ["192.0.2.1:53"],
            "not looked at yet"
        );
        assert_eq!(texts(&servers.in_order(now + LOOK)), ["192.0.2.2:53"]);
        fs::remove_file(&file).unwrap();
        assert_eq!(servers.in_order(now + LOOK * 2), []);
    }

    #[test]
    fn who_has_answered_is_asked_first_for_a_while() {
        let addresses: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let mut servers = NameServers::new(&addresses);
        let now = Instant::now();
        let [first, second] = servers.in_order(now)[..] else {
            panic!("two servers");
        };
        assert_eq!(second.to_string(), "[2001:db8::1]:53");
        servers.has_answered(second, now);
        assert_eq!(servers.in_order(now), [second, first]);
        assert_eq!(servers.in_order(now + PREFERRED), [first, second]);
    }
}
