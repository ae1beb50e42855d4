//! What carries out the work: a trait, so that a test can hand in memory for a disk.

mod allocation;
mod cached;
mod ground;
mod ring;
mod sync;

use cached::Cached;
pub(super) use ground::Ground;
use ring::Ring;
use sync::Sync;

use super::job::Job;
use crate::config::DiskIo;
use crate::disk::{self, Geometry};
use kvmlet_sys::thread::lock;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

/// A job that an operation has ended for, with the bytes transferred.
pub(super) type Ended = (Job, io::Result<u32>);

/// Carries out jobs for one queue. It owns a job until it hands it back, so that buffers outlive their use.
pub(super) trait Backend: Send {
    /// Takes a job in. Never more than [`Medium::backend`] was told of.
    fn submit(&mut self, job: Job);

    /// Starts what was submitted and hands back what has ended, both in one go.
    ///
    /// # Errors
    /// When the back end as a whole is unusable.
    fn advance(&mut self, ended: &mut Vec<Ended>) -> io::Result<()>;

    /// Readable when there may be something to hand back; `None` if nothing ever comes later.
    fn progress(&self) -> Option<BorrowedFd<'_>>;

    /// Whether there may be something to hand back, found out without asking the kernel.
    fn shows_progress(&self) -> bool {
        false
    }

    /// Asks the kernel to end what it works on, waits until it works on nothing any more, however long that takes, and
    /// forgets all jobs: what comes next is new. False if that cannot be known, and this back end is not to be used
    /// again.
    fn settle(&mut self) -> bool;
}

/// Where the back end of a queue is while its thread serves no driver. The thread makes it, and no other may
/// use it.
#[derive(Clone, Default)]
pub(super) struct Shelf(Arc<Mutex<Option<Box<dyn Backend>>>>);

impl Shelf {
    pub fn put(&self, backend: Box<dyn Backend>) {
        *lock(&self.0) = Some(backend);
    }

    pub fn take(&self) -> Option<Box<dyn Backend>> {
        lock(&self.0).take()
    }
}

/// What a disk is made of: where its back ends come from, and its size.
pub(super) trait Medium: Send + std::marker::Sync {
    /// A back end for up to this many jobs at a time, for the calling thread alone.
    fn backend(&self, name: &str, jobs: u16) -> Box<dyn Backend>;

    /// A back end that asks nothing of the host but plain system calls, for the calling thread alone.
    fn plain(&self) -> Box<dyn Backend>;

    /// The size now, in bytes.
    fn bytes(&self) -> Result<u64, disk::Error>;

    fn geometry(&self) -> Geometry;

    /// Whether discards and write-zeroes are available.
    fn can_punch(&self) -> bool;

    /// Has what was written be on the disk, if something can be.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// When it was written last, if that is known.
    fn stamp(&self) -> io::Result<Option<disk::Stamp>> {
        Ok(None)
    }
}

/// Files or a block device of the host.
pub(super) struct FileMedium<G> {
    pub ground: Arc<G>,
    pub io: DiskIo,
}

impl<G: Ground> FileMedium<G> {
    /// What was asked for, if the host has the ring that it takes.
    fn with_ring(&self, jobs: u16) -> io::Result<Box<dyn Backend>> {
        let ground = self.ground.clone();
        Ok(match self.io {
            DiskIo::Sync => self.plain(),
            DiskIo::Auto if ground.is_cached() => Box::new(Cached::new(ground, jobs)?),
            DiskIo::Auto | DiskIo::IoUring => Box::new(Ring::new(ground, jobs)?),
        })
    }
}

impl<G: Ground> Medium for FileMedium<G> {
    fn backend(&self, name: &str, jobs: u16) -> Box<dyn Backend> {
        self.with_ring(jobs).unwrap_or_else(|error| {
            log::info!("{name} goes without io_uring: {error}");
            self.plain()
        })
    }

    fn plain(&self) -> Box<dyn Backend> {
        Box::new(Sync::new(self.ground.clone()))
    }

    fn bytes(&self) -> Result<u64, disk::Error> {
        self.ground.bytes()
    }

    fn geometry(&self) -> Geometry {
        self.ground.geometry()
    }

    fn can_punch(&self) -> bool {
        self.ground.can_punch()
    }

    fn sync(&self) -> io::Result<()> {
        match self.ground.written() {
            Some(file) => Ok(rustix::fs::fdatasync(file)?),
            None => Ok(()),
        }
    }

    fn stamp(&self) -> io::Result<Option<disk::Stamp>> {
        (self.ground.written()).map_or(Ok(None), disk::Stamp::of)
    }
}
