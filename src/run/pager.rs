//! The program that a VM has its memory from, as whoever attends the VM sees it. Who touches a page of a VM whose pager is gone
//! waits for ever, so the VM is ended then.
//!
//! Its connection tells first. A pager may close that once it has its message, and serve on: then its process tells, which is the
//! one that listens.

use crate::Error;
use kvmlet_control::receive_all;
use kvmlet_spec::{Dialect, Failure};
use kvmlet_sys::faults::Faults;
use kvmlet_sys::kin::Peer;
use kvmlet_sys::wait::{self, Slot, Until};
use kvmlet_vmm::memory::Pager;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{PidfdFlags, pidfd_open};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// No VM has more regions.
const MOST_REGIONS: usize = 16;

pub(crate) struct WatchedPager {
    path: PathBuf,
    /// Until it is closed at the other end.
    connection: Option<OwnedFd>,
    /// Its process, where this one sees that.
    process: Option<OwnedFd>,
    /// It is gone, and that was told.
    is_told: bool,
    /// What the VM's process has put there waits until it is wanted: as long as it does, no fault is answered with zeros because the
    /// pager has ended.
    kept: OwnedFd,
}

impl WatchedPager {
    /// Looks after it from now on.
    pub fn of(pager: &mut Pager) -> io::Result<Self> {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (kept, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
        pager.keeper = Some(theirs);
        let process = Peer::of(&pager.socket)?.process;
        let process = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self {
            path: pager.path.clone(),
            connection: Some(pager.socket.try_clone()?),
            process,
            is_told: false,
            kept,
        })
    }

    /// What is waited for on its behalf.
    pub fn slot(&self) -> Slot<'_> {
        match (&self.connection, &self.process) {
            _ if self.is_told => Slot::NOTHING,
            (Some(connection), _) => Slot::broken(connection.as_fd()),
            (None, Some(process)) => Slot::readable(process.as_fd()),
            (None, None) => Slot::NOTHING,
        }
    }

    /// Is it gone, and that not told yet?
    pub fn goes(&mut self) -> bool {
        let goes = !self.is_told && self.is_gone();
        self.is_told |= goes;
        goes
    }

    fn is_gone(&mut self) -> bool {
        if let Some(connection) = &self.connection {
            if !is_now(Slot::broken(connection.as_fd())) {
                return false;
            }
            self.connection = None;
        }
        match &self.process {
            Some(process) => is_now(Slot::readable(process.as_fd())),
            None => true,
        }
    }

    /// Lets go of what waits for pages in the kernel on behalf of a VM's process that was killed, and that it waits for in turn.
    pub fn let_go(&self) {
        let mut regions = [0; 16 * MOST_REGIONS];
        let received = receive_all(&self.kept, &mut regions, RecvFlags::DONTWAIT);
        let Ok((count, descriptors)) = received else {
            return;
        };
        let faults = descriptors.into_iter().next().map(Faults::from);
        for region in regions[..count].chunks_exact(16) {
            let (mut start, mut end) = ([0; 8], [0; 8]);
            start.copy_from_slice(&region[..8]);
            end.copy_from_slice(&region[8..]);
            let region = u64::from_le_bytes(start)..u64::from_le_bytes(end);
            let let_go = faults.as_ref().map(|faults| faults.let_go(region));
            if let Some(Err(error)) = let_go {
                log::debug!("the VM's memory is gone, or waits: {error}");
            }
        }
    }

    /// Why a VM has ended whose pager is gone.
    pub fn failure(&self, dialect: Dialect) -> Failure {
        let path = self.path.clone();
        Error::PagerGone { path }.told_in(dialect)
    }
}

fn is_now(slot: Slot<'_>) -> bool {
    wait::one(slot, Until::Now).unwrap_or(false)
}
