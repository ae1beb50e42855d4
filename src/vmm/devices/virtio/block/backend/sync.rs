//! Plain system calls, one after the other, where io_uring is not available.

use super::ground::Ground;
use super::{Backend, Ended, allocation};
use crate::devices::virtio::block::job::{Job, Operation};
use rustix::fs::fdatasync;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

/// Does each job when it is submitted and hands it back at the next opportunity.
pub(in super::super) struct Sync<G> {
    ground: Arc<G>,
    ended: Vec<Ended>,
}

impl<G: Ground> Sync<G> {
    pub fn new(ground: Arc<G>) -> Self {
        Self {
            ground,
            ended: Vec::new(),
        }
    }

    fn run(&self, job: &Job) -> io::Result<u32> {
        match job.operation {
            Operation::Read => transfer(&*self.ground, job, |fd, parts, count, offset| {
                // SAFETY: the parts are mapped memory that the job keeps alive.
                unsafe { libc::preadv(fd, parts, count, offset) }
            }),
            Operation::Write { durable } => {
                transfer(&*self.ground, job, |fd, parts, count, offset| {
                    let flags = if durable { libc::RWF_DSYNC } else { 0 };
                    // SAFETY: the parts are mapped memory that the job keeps alive.
                    unsafe { libc::pwritev2(fd, parts, count, offset, flags) }
                })
            }
            Operation::Sync => Ok(self
                .ground
                .written()
                .map_or(Ok(()), fdatasync)
                .map(|()| 0)?),
            Operation::Punch | Operation::Zero => match self.ground.written() {
                Some(file) => allocation::allocate(file, job),
                None => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            },
        }
    }
}

/// Transfers what a job is to transfer next by one call, which gets descriptor, parts, their number, and the offset.
pub(super) fn transfer(
    ground: &impl Ground,
    job: &Job,
    call: impl Fn(libc::c_int, *const libc::iovec, libc::c_int, libc::off_t) -> isize,
) -> io::Result<u32> {
    let (fd, offset) = ground.locate(job);
    let parts = job.buffers.parts();
    // No more parts than a queue has entries, no offset beyond the disk.
    let count = parts.len() as libc::c_int;
    match call(fd.as_raw_fd(), parts.as_ptr(), count, offset as libc::off_t) {
        // The kernel stops at MAX_RW_COUNT, which fits.
        done @ 0.. => Ok(done as u32),
        _ => Err(io::Error::last_os_error()),
    }
}

impl<G: Ground> Backend for Sync<G> {
    fn submit(&mut self, mut job: Job) {
        self.ground.bound(&mut job);
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
