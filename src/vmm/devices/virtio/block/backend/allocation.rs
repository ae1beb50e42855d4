//! Giving blocks back, and making them zeroes.

use crate::devices::virtio::block::job::{Job, Operation};
use rustix::fs::{FallocateFlags, fallocate};
use std::io;
use std::os::fd::AsFd;

/// How it is asked for (fallocate(2)); none where there is nothing to do: an empty range is refused.
///
/// A thread's list of system calls has these modes and no others. Zeroes go without FALLOC_FL_KEEP_SIZE, with which
/// a file gets blocks beyond its end whatever RLIMIT_FSIZE says.
pub(super) fn mode(job: &Job) -> Option<FallocateFlags> {
    let mode = match job.operation {
        Operation::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        Operation::Zero => FallocateFlags::ZERO_RANGE,
        Operation::Read | Operation::Write { .. } | Operation::Sync => return None,
    };
    (job.bytes > 0).then_some(mode)
}

/// Does it at once.
pub(super) fn allocate(file: impl AsFd, job: &Job) -> io::Result<u32> {
    if let Some(mode) = mode(job) {
        fallocate(file, mode, job.offset, job.bytes)?;
    }
    Ok(0)
}
