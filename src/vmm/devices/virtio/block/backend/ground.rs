//! Where on the host the data of jobs are.

use super::super::job::Job;
use crate::disk::{self, DiskExtents, DiskFile, Geometry};
use kvmlet_sys::ring;
use std::os::fd::{AsFd, BorrowedFd};

/// What jobs are carried out on. Back ends are compiled for each kind, so that a file alone costs nothing for the others.
pub(in super::super) trait Ground: Send + Sync + 'static {
    /// Bounds a transfer to what lies in one place.
    fn bound(&self, job: &mut Job);

    /// Where the next transfer of a job begins.
    fn locate(&self, job: &Job) -> (BorrowedFd<'_>, u64);

    /// What is written to, of which syncs and allocations are.
    fn written(&self) -> Option<BorrowedFd<'_>>;

    /// What a ring for it is for.
    fn kind(&self) -> ring::Medium;

    /// Whether all transfers go through the page cache.
    fn is_cached(&self) -> bool;

    /// The size now, in bytes.
    fn bytes(&self) -> Result<u64, disk::Error>;

    fn geometry(&self) -> Geometry;

    /// Whether discards and write-zeroes are available.
    fn can_punch(&self) -> bool;
}

impl Ground for DiskFile {
    fn bound(&self, _: &mut Job) {}

    fn locate(&self, job: &Job) -> (BorrowedFd<'_>, u64) {
        let is_aligned = |alignment| job.buffers.is_aligned(alignment);
        let descriptor = self.descriptor(job.offset, job.bytes, is_aligned);
        (descriptor, job.offset)
    }

    fn written(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }

    fn kind(&self) -> ring::Medium {
        self.medium()
    }

    fn is_cached(&self) -> bool {
        self.is_cached()
    }

    fn bytes(&self) -> Result<u64, disk::Error> {
        self.bytes()
    }

    fn geometry(&self) -> Geometry {
        self.geometry()
    }

    fn can_punch(&self) -> bool {
        self.can_punch()
    }
}

impl Ground for DiskExtents {
    /// A request that goes on in another range takes one more operation, as after any short transfer.
    fn bound(&self, job: &mut Job) {
        if let Some(place) = self.at(job.offset).filter(|place| place.bytes < job.bytes) {
            job.buffers.bound(place.bytes);
        }
    }

    fn locate(&self, job: &Job) -> (BorrowedFd<'_>, u64) {
        let Some(place) = self.at(job.offset) else {
            // A request for nothing, at the end of the disk. There, no file has anything.
            return (self.first().as_fd(), i64::MAX as u64);
        };
        let is_aligned = |alignment| job.buffers.is_aligned(alignment);
        let bytes = job.bytes.min(place.bytes);
        let descriptor = place.file.descriptor(place.offset, bytes, is_aligned);
        (descriptor, place.offset)
    }

    fn written(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn kind(&self) -> ring::Medium {
        ring::Medium::File
    }

    fn is_cached(&self) -> bool {
        self.first().is_cached()
    }

    fn bytes(&self) -> Result<u64, disk::Error> {
        Ok(self.bytes())
    }

    fn geometry(&self) -> Geometry {
        self.geometry()
    }

    fn can_punch(&self) -> bool {
        false
    }
}
