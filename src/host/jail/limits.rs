//! Resource limits (setrlimit(2)) of a process in the jail.

use super::descriptors::Inventory;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Descriptors that may come: timers of rate limits, mostly, two for each queue in use.
const MORE_DESCRIPTORS: u64 = 64;
/// Threads of the kernel count, too: io_uring has up to four for each CPU that work for a thread which has a
/// ring, and KVM may have one.
const KERNEL_THREADS: u64 = 64;

/// Limits this process, which will have this many threads, to little more than what it has. Nothing is known of what it
/// has open where there is no /proc.
pub(super) fn set(open: Option<&Inventory>, threads: usize) -> io::Result<()> {
    limit(Resource::Core, 0)?;
    limit(Resource::Nproc, (threads as u64 + 1) * KERNEL_THREADS)?;
    limit(Resource::Msgqueue, 0)?;
    if let Some(open) = open {
        limit(Resource::Nofile, open.highest as u64 + 1 + MORE_DESCRIPTORS)?;
        if !open.writes_files {
            limit(Resource::Fsize, 0)?;
        }
    }
    Ok(())
}

/// Never above what it is.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let hard = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = Some(most.min(hard));
    setrlimit(
        resource,
        Rlimit {
            current: value,
            maximum: value,
        },
    )?;
    Ok(())
}
