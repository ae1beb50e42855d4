//! Network namespaces: which this is, and whether another one may still be there.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// asm-generic/socket.h
const SO_NETNS_COOKIE: libc::c_int = 71;

/// A network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Namespace {
    /// By which others see it in /proc, and which another has once it is gone; 0 where that cannot be known.
    pub inode: u64,
    /// Which no other has until the next boot; 0 before Linux 5.14.
    pub cookie: u64,
}

impl Namespace {
    /// That of this thread.
    pub fn here() -> Self {
        Self {
            inode: fs::metadata("/proc/thread-self/ns/net").map_or(0, |data| data.ino()),
            cookie: cookie().unwrap_or(0),
        }
    }

    /// Is it the one that these were written down of?
    pub fn is(self, inode: u64, cookie: u64) -> bool {
        let known = self.cookie != 0 && cookie != 0;
        self.inode == inode && (!known || self.cookie == cookie)
    }
}

fn cookie() -> io::Result<u64> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    let mut cookie = 0_u64;
    let mut size = size_of_val(&cookie) as libc::socklen_t;
    let to = (&raw mut cookie).cast();
    // SAFETY: the kernel writes at most as many bytes as the number has.
    let result = unsafe {
        let fd = socket.as_raw_fd();
        libc::getsockopt(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, to, &raw mut size)
    };
    match result {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Those of these namespaces, by their numbers, that are gone: no thread is in them, nobody has them open, and they are
/// mounted nowhere. None where this user may not see enough to say so.
///
/// This looks at all processes of the host.
pub(super) fn gone(inodes: &[u64]) -> Vec<u64> {
    let mut sought: HashMap<String, u64> = inodes
        .iter()
        .map(|inode| (format!("net:[{inode}]"), *inode))
        .collect();
    match find(&mut sought) {
        Ok(()) => sought.into_values().collect(),
        Err(_) => Vec::new(),
    }
}

/// Leaves those that are seen nowhere. Errors are about what this user may not see.
fn find(sought: &mut HashMap<String, u64>) -> io::Result<()> {
    let mut mounts = HashSet::new();
    for process in children(Path::new("/proc"))? {
        let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let number = process.file_name().and_then(|name| name.to_str());
        if !number.is_some_and(is_process) {
            continue;
        }
        let tasks = children(&process.join("task"))?;
        let namespaces = tasks.iter().map(|task| task.join("ns/net"));
        for link in namespaces.chain(children(&process.join("fd"))?) {
            if let Some(target) = target(&link)? {
                sought.remove(&target);
            }
        }
        // One list for all who see the same.
        let Some(seen) = target(&process.join("ns/mnt"))? else {
            continue;
        };
        if mounts.insert(seen) {
            let list = there(fs::read_to_string(process.join("mountinfo")))?;
            // The root of the mount, in the fourth field (proc_pid_mountinfo(5)).
            for line in list.iter().flat_map(|list| list.lines()) {
                line.split(' ').nth(3).map(|root| sought.remove(root));
            }
        }
        if sought.is_empty() {
            break;
        }
    }
    Ok(())
}

fn children(directory: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let entries = there(fs::read_dir(directory))?;
    let entries = entries.into_iter().flatten().flatten();
    Ok(entries.map(|entry| entry.path()).collect())
}

fn target(link: &Path) -> io::Result<Option<String>> {
    let target = there(fs::read_link(link))?;
    Ok(target.map(|target| target.to_string_lossy().into_owned()))
}

/// Nothing of what has ended meanwhile.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
