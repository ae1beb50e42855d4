//! Where a VM's statistics go: into a file, by way of the supervisor where there is one.

use crate::{Error, Tell};
use kvmlet_spec::{StartRecord, VmStats};
use kvmlet_sys::whole_file::WholeFile;
use kvmlet_vmm::vm::VmHandle;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};
use serde::Serialize;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// More than any VM has to tell, and less than a socket takes at once.
const MESSAGE_BYTES: usize = 128 << 10;

/// Takes snapshots of statistics.
pub(crate) enum StatsSink {
    /// Nobody wants them.
    Nowhere,
    /// Written by this process.
    File(Box<WholeFile>),
    /// Sent to the supervisor: a process in a jail has no files.
    Supervisor(OwnedFd),
}

impl StatsSink {
    /// Writes how it is now.
    pub fn put(&self, vm: &VmHandle, started: Instant) -> Result<(), Error> {
        let text = || Snapshot::of(vm, started).text();
        match self {
            StatsSink::Nowhere => Ok(()),
            StatsSink::File(file) => Ok(file.write(text().as_bytes())?),
            StatsSink::Supervisor(socket) => {
                let sent = send(socket, text().as_bytes(), SendFlags::NOSIGNAL);
                sent.map(drop).map_err(|error| Error::Untold(error.into()))
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

/// What has come from the VM's process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A snapshot.
    One(Vec<u8>),
    /// None for now.
    None,
    /// None any more.
    Last,
}

/// The supervisor's end: passes on what the VM's process sends.
pub(crate) struct StatsSource {
    file: WholeFile,
    socket: OwnedFd,
    tell: Tell,
    /// The last snapshot is not there.
    failed: bool,
}

impl StatsSource {
    /// Both ends for a file.
    pub fn pair(file: WholeFile, tell: Tell) -> io::Result<(Self, StatsSink)> {
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let source = Self {
            file,
            socket,
            tell,
            failed: false,
        };
        Ok((source, StatsSink::Supervisor(theirs)))
    }

    /// Takes one snapshot that has come: a VM that sends without end keeps nobody from other work.
    pub fn receive(&mut self) -> Received {
        let mut text = vec![0; MESSAGE_BYTES];
        match recv(&self.socket, &mut text[..], RecvFlags::DONTWAIT) {
            Ok((count @ 1.., _)) => {
                text.truncate(count);
                Received::One(text)
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Received::None,
            Ok(_) | Err(_) => Received::Last,
        }
    }

    /// Writes all that is left when the VM's process has ended. Who reads a FIFO may have stopped to, and a VM may have
    /// sent hundreds: what cannot be written is waited for once.
    pub fn finish(&mut self) {
        while !self.failed
            && let Received::One(text) = self.receive()
        {
            self.write(&text);
        }
    }

    /// Writes a snapshot.
    pub fn write(&mut self, text: &[u8]) {
        let written = self.file.write(text).map_err(Error::from);
        let failed_before = std::mem::replace(&mut self.failed, written.is_err());
        match written {
            // Once in a row.
            Err(error) if !failed_before => (self.tell)(error),
            _ => {}
        }
    }

    /// Could the last snapshot not be written?
    pub fn has_failed(&self) -> bool {
        self.failed
    }
}

impl AsFd for StatsSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_does_not_read_is_waited_for_once_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        let _reader = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let (mut source, StatsSink::Supervisor(theirs)) =
            StatsSource::pair(WholeFile::open(&path).unwrap(), |_| ()).unwrap()
        else {
            panic!("no socket");
        };
        // More than a FIFO holds, in many pieces.
        for _ in 0..100 {
            let text = [b' '; 1200];
            let _ = send(&theirs, &text, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
        drop(theirs);
        for _ in 0..64 {
            source.write(&[b' '; 1024]);
        }
        let since = Instant::now();
        source.finish();
        assert!(source.has_failed());
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "{:?}",
            since.elapsed()
        );
    }

    #[test]
    fn a_vm_that_sends_without_end_keeps_nobody_from_other_work() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stats.json");
        let file = WholeFile::open(&path).unwrap();
        let (mut source, StatsSink::Supervisor(theirs)) = StatsSource::pair(file, |_| ()).unwrap()
        else {
            panic!("no socket");
        };
        let flood =
            std::thread::spawn(move || while send(&theirs, b"{}", SendFlags::NOSIGNAL).is_ok() {});
        let since = Instant::now();
        // Each returns, though there is always more.
        let mut taken = 0;
        while taken < 100 {
            if let Received::One(text) = source.receive() {
                source.write(&text);
                taken += 1;
            }
        }
        assert!(since.elapsed() < Duration::from_secs(10));
        assert_eq!(std::fs::read(&path).unwrap(), b"{}");
        drop(source);
        flood.join().unwrap();
    }
}
