//! Where a VM's statistics go: into a file, by way of the supervisor where there is one.

use crate::VmHandle;
use crate::vm::{StartRecord, VmStats};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};
use serde::Serialize;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// More than any VM has to tell, and less than a socket takes at once.
const MESSAGE_BYTES: usize = 128 << 10;

/// Takes snapshots of statistics.
pub(super) enum StatsSink {
    /// Nobody wants them.
    Nowhere,
    /// Written by this process.
    File(PathBuf),
    /// Sent to the supervisor: a process in a jail has no files.
    Supervisor(OwnedFd),
}

impl StatsSink {
    /// A file that cannot be written is no reason to end a VM that runs.
    pub fn put(&self, vm: &VmHandle, started: Instant) {
        let text = || Snapshot::of(vm, started).text();
        match self {
            StatsSink::Nowhere => {}
            StatsSink::File(path) => replace(path, text().as_bytes()),
            StatsSink::Supervisor(socket) => {
                let text = text();
                if let Err(error) = send(socket, text.as_bytes(), SendFlags::NOSIGNAL) {
                    log::error!("statistics cannot be sent to the supervisor: {error}");
                }
            }
        }
    }
}

/// What is written.
#[derive(Serialize)]
struct Snapshot {
    start: StartRecord,
    #[serde(flatten)]
    stats: VmStats,
}

impl Snapshot {
    /// Of a VM whose process began to run at `started`.
    fn of(vm: &VmHandle, started: Instant) -> Self {
        Self {
            start: vm.boot_trace().record(started),
            stats: vm.stats(),
        }
    }

    fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// The supervisor's end: passes on what the VM's process sends.
pub(super) struct StatsSource {
    path: PathBuf,
    socket: OwnedFd,
}

impl StatsSource {
    /// Both ends for a file.
    pub fn pair(path: PathBuf) -> io::Result<(Self, StatsSink)> {
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self { path, socket }, StatsSink::Supervisor(theirs)))
    }

    /// Writes what has come; false when no more will.
    pub fn pass_on(&self) -> bool {
        let mut text = vec![0; MESSAGE_BYTES];
        loop {
            match recv(&self.socket, &mut text[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((count, _)) => replace(&self.path, &text[..count]),
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl AsFd for StatsSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Renamed into place: whoever reads the file sees one whole snapshot.
fn replace(path: &Path, text: &[u8]) {
    let new = path.with_extension("new");
    let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path));
    if let Err(error) = written {
        log::error!(
            "statistics cannot be written to `{}`: {error}",
            path.display()
        );
    }
}
