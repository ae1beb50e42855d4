//! Plain system calls, one after the other, where io_uring is not available.

use super::{Backend, Ended, allocation};
use crate::devices::virtio::block::job::{Job, Operation};
use crate::disk::DiskFile;
use rustix::fs::fdatasync;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

/// Does each job when it is submitted and hands it back at the next opportunity.
pub(in super::super) struct Sync {
    file: Arc<DiskFile>,
    ended: Vec<Ended>,
}

impl Sync {
    pub fn new(file: Arc<DiskFile>) -> Self {
        Self {
            file,
            ended: Vec::new(),
        }
    }

    fn run(&self, job: &Job) -> io::Result<u32> {
        match job.operation {
            Operation::Read => self.transfer(job, |fd, parts, count, offset| {
                // SAFETY: the parts are mapped memory that the job keeps alive.
                unsafe { libc::preadv(fd, parts, count, offset) }
            }),
            Operation::Write { durable } => self.transfer(job, |fd, parts, count, offset| {
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                // SAFETY: the parts are mapped memory that the job keeps alive.
                unsafe { libc::pwritev2(fd, parts, count, offset, flags) }
            }),
            Operation::Sync => Ok(fdatasync(&self.file).map(|()| 0)?),
            Operation::Punch | Operation::Zero => allocation::allocate(&self.file, job),
        }
    }

    fn transfer(
        &self,
        job: &Job,
        call: impl Fn(libc::c_int, *const libc::iovec, libc::c_int, libc::off_t) -> isize,
    ) -> io::Result<u32> {
        let fd = self.file.descriptor(job.offset, job.bytes, |alignment| {
            job.buffers.is_aligned(alignment)
        });
        let parts = job.buffers.parts();
        // No more parts than a queue has entries, no offset beyond the disk.
        let count = parts.len() as libc::c_int;
        match call(
            fd.as_raw_fd(),
            parts.as_ptr(),
            count,
            job.offset as libc::off_t,
        ) {
            // The kernel stops at MAX_RW_COUNT, which fits.
            done @ 0.. => Ok(done as u32),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Backend for Sync {
    fn submit(&mut self, job: Job) {
        let result = self.run(&job);
        self.ended.push((job, result));
    }

    fn advance(&mut self, ended: &mut Vec<Ended>) -> io::Result<()> {
        ended.append(&mut self.ended);
        Ok(())
    }

    fn progress(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn settle(&mut self) -> bool {
        self.ended.clear();
        true
    }
}
